"""Recipes in TOML: the settings of a published method, and tables of those that depend on data set and IPC.

A recipe has ``defaults`` and ``settings``, tables that are laid over them: see `dsdistill.config.settings`.
``base`` names another recipe, or its file, whose options come first; ``paper``, ``follows`` and ``protocol``
are those of the base where they are not given. ``plugin`` names a file of Python beside the recipe, which
registers what the recipe needs: an engine, a discrepancy, a network. Recipes of runs and of experts differ
in a few fields only.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, cast, get_args

from dsdistill.config.aliases import modernise
from dsdistill.config.options import known_keys, merge
from dsdistill.config.presets import EXPERT_RECIPES, RECIPES, Presets
from dsdistill.config.settings import CONDITIONS, Setting
from dsdistill.config.validation import forbid_extra, validate
from dsdistill.errors import UserError, quoted, unknown
from dsdistill.files import expanded
from dsdistill.plugs import load_file

Budget = Literal["paper", "laptop"]
"""The scale of experts: the paper's or its code's, or one that a machine without a GPU trains in an hour."""
_DEFAULTS: dict[Budget, str] = {"paper": "the default on a GPU", "laptop": "the default without one"}
"""When each scale is taken unasked."""


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
    plugin: str = ""
    """A file of Python in the recipe's folder, run before the options are read. Only the recipe of a user's
    own file has one, and it is named without folders: whoever names the recipe runs what lies beside it."""

    def lineage(self) -> list[Self]:
        """Return this recipe, its base, the base of that, and so on.

        Raises:
            UserError: a base cannot be read, or bases lead in a ring.
        """
        recipes = [self]
        while base := recipes[-1].base:
            recipe = _load(type(self), base)
            if recipe.base in (descendant.base for descendant in recipes):
                raise _ring(f"recipe {recipe.name!r}", recipe.base)
            recipes.append(recipe)
        return recipes

    def load_plugins(self) -> None:
        """Run the files of Python that this recipe and its bases name.

        Raises:
            UserError: one cannot be read, or raises an exception.
        """
        for recipe in reversed(self.lineage()):
            if recipe.plugin:
                load_file(recipe.plugin)

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
        identity: dict[str, Any] = {}
        for recipe in reversed(self.lineage()):
            inherited, identity = identity, recipe._identity()
            own = {key: value for key, value in identity.items() if inherited.get(key) != value}
            options = merge(options, {**own, **modernise(recipe.defaults, renamed)})
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
    experts: str = ""
    """The recipe of the experts that it matches with, or its file; empty where it needs none."""

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

    def about_experts(self) -> str:
        """Say which experts a run trains first where none are named; empty if the method needs none.

        Raises:
            UserError: the recipe of the experts is wrong.
        """
        if not self.experts:
            return ""
        recipe, scales = load_expert_recipe(self.experts), []
        for budget, when in _DEFAULTS.items():
            if budget == "paper" or recipe.laptop:
                options = recipe.options("", budget)
                size = f"{options['count']} of {options['epochs']} epochs"
                scales.append(f"--budget {budget} ({when}) takes {size}")
        return (
            "where --experts names none, distill trains them first and keeps them, by recipe "
            f"{recipe.name}: {'; '.join(scales)}"
        )


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class ExpertRecipe(BaseRecipe):
    """How a published method trains its experts."""

    presets: ClassVar[Presets] = EXPERT_RECIPES
    conditions: ClassVar[tuple[str, ...]] = ("dataset",)

    laptop: dict[str, Any] = field(default_factory=dict)
    """Options of a smaller scale, for machines without a GPU; with ``note``, what is known of its cost."""

    def options(self, dataset: str, budget: Budget = "paper") -> dict[str, Any]:
        """Return the options of training experts on a data set.

        Args:
            budget: "laptop" for the smaller scale.

        Raises:
            UserError: a table of settings is wrong, a base cannot be read, or there is no such scale.
        """
        check_budget(budget)
        options = self._options(dataset, None)
        return merge(options, self.scale) if budget == "laptop" else options

    @property
    def scale(self) -> dict[str, Any]:
        """The options of the smaller scale.

        Raises:
            UserError: the recipe has none.
        """
        if not self.laptop:
            raise UserError(f"recipe {self.name!r} has no laptop scale; set count and epochs yourself")
        return {key: value for key, value in self.laptop.items() if key != "note"}

    def _identity(self) -> dict[str, Any]:
        return {"recipe": self.name}


def check_budget(name: str) -> Budget:
    """Return the name of a scale of experts.

    Raises:
        UserError: there is none of this name; with the nearest one.
    """
    if name not in get_args(Budget):
        raise unknown("budget", name, get_args(Budget))
    return cast("Budget", name)


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


_INHERITED = ("paper", "follows", "protocol")
"""What a recipe has from its base where it does not say it."""


def _load(kind: type[Kind], name: str, heirs: tuple[str, ...] = ()) -> Kind:
    """Read a recipe.

    Args:
        kind: of runs or of experts.
        name: a name or a path.
        heirs: bases whose reading led to this one.
    """
    table = kind.presets.read(name)
    what = f"recipe {table['name']!r}"
    folder = kind.presets.find(name).parent
    for key in ("base", "experts"):
        if isinstance(path := table.get(key), str) and path.endswith(".toml"):
            table[key] = str(folder / expanded(path))
    base, plugin = table.get("base"), table.get("plugin")
    if plugin:
        table["plugin"] = _plugin(folder, plugin, what)
    fields = {each.name for each in dataclasses.fields(kind)}
    inherited = [key for key in _INHERITED if key in fields - table.keys()]
    if inherited and isinstance(base, str) and base:
        if base in heirs:
            raise _ring(what, base)
        parent = _load(kind, base, (*heirs, base))
        table |= {key: getattr(parent, key) for key in inherited}
    recipe: Kind = validate(kind, table, f"{what}: key", known_keys(kind))
    return recipe


def _plugin(folder: Path, name: Any, what: str) -> str:
    """Return the path of a recipe's file of Python.

    Raises:
        UserError: it does not lie beside the recipe.
    """
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".py"):
        raise UserError(f"{what}: plugin is a file of Python beside the recipe, FILE.py, not {quoted(name)}")
    return str(folder / name)


def _ring(what: str, base: str) -> UserError:
    return UserError(f"{what} begins from {base!r}, which begins from it; drop one")
