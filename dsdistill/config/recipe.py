"""Recipes in TOML: the settings of a published method, and tables of those that depend on data set and IPC.

A recipe has ``defaults`` and ``settings``, a list of tables::

    [[settings]]
    when = { dataset = ["cifar10"], ipc_min = 10 }  # all of these conditions; none of them always hold
    set = { iterations = 5000 }                     # options as they are
    per_ipc = { optimiser = { lr = 0.1 } }          # options proportional to the IPC
    source = "the paper's table 3"

Every table whose conditions hold is laid over the defaults; later tables win. ``base`` names another recipe,
whose options come first. Recipes of runs and of experts differ in a few fields only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, TypeVar

from dsdistill.config.aliases import modernise
from dsdistill.config.options import flatten, known_keys, merge
from dsdistill.config.presets import Presets
from dsdistill.config.validation import forbid_extra, validate
from dsdistill.errors import UserError
from dsdistill.files import expanded

RECIPES = Presets("recipes", "method")
EXPERT_RECIPES = Presets("experts", "recipe of experts")


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
                recipe._check(table)
                if _holds(table["when"], dataset, ipc):
                    options = merge(options, modernise(table.get("set", {}), renamed))
                    proportional = _times(table.get("per_ipc", {}), ipc or 0)
                    options = merge(options, modernise(proportional, renamed))
        return options

    def _check(self, table: Mapping[str, Any]) -> None:
        """Check one table of settings.

        Raises:
            UserError: naming what is wrong and what the table may hold.
        """
        recipe = f"recipe {self.name!r}"
        parts = table.keys() - {"source"}
        known = {"when", "set", "per_ipc"}
        if not {"when"} < parts <= known or not all(isinstance(table[part], Mapping) for part in parts):
            raise UserError(
                f"{recipe}: a table of settings takes when, set or per_ipc, and source; "
                "the first three are tables"
            )
        when, per_ipc = table["when"], flatten(table.get("per_ipc", {}))
        if unsupported := when.keys() - set(self.conditions):
            raise UserError(f"{recipe}: no such condition: {', '.join(sorted(unsupported))}")
        if per_ipc and "ipc_min" not in self.conditions:
            raise UserError(f"{recipe}: nothing here depends on the IPC; put per_ipc into set")
        names = when.get("dataset", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{recipe}: dataset is a list of names, not {names!r}")
        bounds = [when.get(bound, 0) for bound in ("ipc_min", "ipc_max")]
        if not all(isinstance(number, int) for number in bounds):
            raise UserError(f"{recipe}: ipc_min and ipc_max are whole numbers")
        if not all(isinstance(value, (int, float)) for value in per_ipc.values()):
            raise UserError(f"{recipe}: per_ipc holds numbers, to be multiplied by the IPC")


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Recipe(BaseRecipe):
    """How a published method distils."""

    presets: ClassVar[Presets] = RECIPES
    conditions: ClassVar[tuple[str, ...]] = ("dataset", "ipc_min", "ipc_max")

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


def _holds(when: Mapping[str, Any], dataset: str, ipc: int | None) -> bool:
    """Whether all conditions of a table hold."""
    if dataset not in when.get("dataset", [dataset]):
        return False
    return ipc is None or when.get("ipc_min", ipc) <= ipc <= when.get("ipc_max", ipc)


def _times(options: Mapping[str, Any], ipc: int) -> dict[str, Any]:
    """Multiply every number in nested options by the IPC."""
    return {
        key: _times(value, ipc) if isinstance(value, Mapping) else value * ipc
        for key, value in options.items()
    }
