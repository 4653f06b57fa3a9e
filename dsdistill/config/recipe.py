"""Recipes in TOML: the settings of a published method, and tables of those that depend on data set and IPC.

A recipe has ``defaults`` and ``settings``, tables that are laid over them: see `dsdistill.config.settings`.
``base`` names another recipe, whose options come first. Recipes of runs and of experts differ in a few fields
only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, TypeVar

from dsdistill.config.aliases import modernise
from dsdistill.config.options import known_keys, merge
from dsdistill.config.presets import EXPERT_RECIPES, RECIPES, Presets
from dsdistill.config.settings import CONDITIONS, Setting
from dsdistill.config.validation import forbid_extra, validate
from dsdistill.errors import UserError
from dsdistill.files import expanded


@dataclass(frozen=True, kw_only=True)
class BaseRecipe(ABC):
    """What recipes of runs and of experts have in common."""

    presets: ClassVar[Presets]
    """The presets of this kind of recipe."""
    conditions: ClassVar[tuple[str, ...]]
    """The keys that ``when`` may have."""

    name: str
    title: str
    paper: str
    follows: Literal["paper", "code"]
    """The source of the settings if the paper and its code differ."""
    defaults: dict[str, Any] = field(default_factory=dict)
    settings: tuple[dict[str, Any], ...] = ()
    base: str = ""
    """Another recipe, whose options come first."""

    def lineage(self) -> list[Self]:
        """Return this recipe, its base, the base of that, and so on.

        Raises:
            UserError: a base cannot be read, or bases lead in a ring.
        """
        recipes = [self]
        while base := recipes[-1].base:
            recipe = _load(type(self), base)
            if recipe.base in (descendant.base for descendant in recipes):
                raise UserError(
                    f"recipe {recipe.name!r} begins from {recipe.base!r}, which begins from it; drop one"
                )
            recipes.append(recipe)
        return recipes

    @abstractmethod
    def _identity(self) -> dict[str, Any]:
        """Return the options that name this recipe in a config."""

    def _options(self, dataset: str, ipc: int | None, renamed: list[str] | None = None) -> dict[str, Any]:
        """Return the options for a data set: those of every base, then this recipe's own.

        Args:
            ipc: images per class; None for experts.
            renamed: as for `modernise`.

        Raises:
            UserError: a table of settings is wrong, or as `lineage`.
        """
        options: dict[str, Any] = {}
        for recipe in reversed(self.lineage()):
            options = merge(options, {**recipe._identity(), **modernise(recipe.defaults, renamed)})
            for table in recipe.settings:
                setting = Setting.read(table, f"recipe {recipe.name!r}", recipe.conditions)
                if setting.holds(dataset, ipc):
                    for part in setting.options(ipc):
                        options = merge(options, modernise(part, renamed))
        return options


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Recipe(BaseRecipe):
    """How a published method distils."""

    presets: ClassVar[Presets] = RECIPES
    conditions: ClassVar[tuple[str, ...]] = CONDITIONS

    protocol: str
    """The evaluation protocol of the method's paper."""

    def options(self, dataset: str, ipc: int, renamed: list[str] | None = None) -> dict[str, Any]:
        """Return the options of a run on a data set at an IPC, under their present names.

        Args:
            renamed: a phrase is appended for every old name, as by `modernise`.

        Raises:
            UserError: a table of settings is wrong, or a base cannot be read.
        """
        return self._options(dataset, ipc, renamed)

    def _identity(self) -> dict[str, Any]:
        return {"method": self.name, "protocol": self.protocol}


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class ExpertRecipe(BaseRecipe):
    """How a published method trains its experts."""

    presets: ClassVar[Presets] = EXPERT_RECIPES
    conditions: ClassVar[tuple[str, ...]] = ("dataset",)

    def options(self, dataset: str) -> dict[str, Any]:
        """Return the options of training experts on a data set.

        Raises:
            UserError: a table of settings is wrong, or a base cannot be read.
        """
        return self._options(dataset, None)

    def _identity(self) -> dict[str, Any]:
        return {"recipe": self.name}


def load_recipe(name: str) -> Recipe:
    """Read the recipe of a method by name, or from the path of a TOML file.

    Raises:
        UserError: there is no such recipe, or the file is not one.
    """
    return _load(Recipe, name)


def load_expert_recipe(name: str) -> ExpertRecipe:
    """Read a recipe of experts by name, or from the path of a TOML file.

    Raises:
        UserError: there is no such recipe, or the file is not one.
    """
    return _load(ExpertRecipe, name)


Kind = TypeVar("Kind", bound=BaseRecipe)


def _load(kind: type[Kind], name: str) -> Kind:
    table = kind.presets.read(name)
    if str(table.get("base", "")).endswith(".toml"):  # relative to the recipe's own folder
        table["base"] = str(kind.presets.find(name).parent / expanded(table["base"]))
    return validate(kind, table, f"recipe {table['name']!r}: key", known_keys(kind))
