"""Recipes: a published method's settings, and tables of those that depend on data and IPC, in TOML."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dsdistill.config.options import known_keys, merged
from dsdistill.config.presets import Presets
from dsdistill.config.validation import dotted, forbid_extra, validated
from dsdistill.errors import UserError


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published method: what it is, its settings, and tables of those that vary."""

    name: str
    title: str
    paper: str
    follows: Literal["paper", "code"]
    """Which one the settings follow where the paper and its code differ."""
    protocol: str
    defaults: dict[str, Any] = field(default_factory=dict)
    settings: tuple[dict[str, Any], ...] = ()
    base: str = ""
    """Another recipe, whose options come first."""

    def lineage(self) -> list[Recipe]:
        """Return this recipe, the one it begins from, and so on.

        Raises:
            UserError: a base cannot be read, or bases lead in a ring.
        """
        found = [self]
        while base := found[-1].base:
            recipe = load_recipe(base)
            if recipe.base in (each.base for each in found):
                raise UserError(
                    f"recipe {recipe.name!r} begins from {recipe.base!r}, which begins from it; drop one"
                )
            found.append(recipe)
        return found

    def options(self, dataset: str, ipc: int) -> dict[str, Any]:
        """Return the options for a data set and IPC: the defaults under every table whose ``when`` holds.

        Those of ``base`` come before them all. A table gives options as they are under ``set``, and under
        ``per_ipc`` those proportional to the IPC.

        Raises:
            UserError: a table is wrong, or as `lineage`.
        """
        found: dict[str, Any] = {}
        for recipe in reversed(self.lineage()):
            found = recipe._over(found, dataset, ipc)
        return found

    def _over(self, found: dict[str, Any], dataset: str, ipc: int) -> dict[str, Any]:
        """Put this recipe's own options over those of its base."""
        found = merged(found, {"method": self.name, "protocol": self.protocol})
        found = merged(found, self.defaults)
        for table in self.settings:
            self._check(table)
            when = table["when"]
            if unsupported := when.keys() - {"dataset", "ipc_min", "ipc_max"}:
                raise UserError(f"recipe {self.name!r}: no such condition: {', '.join(sorted(unsupported))}")
            fits = dataset in when.get("dataset", [dataset])
            if fits and when.get("ipc_min", ipc) <= ipc <= when.get("ipc_max", ipc):
                found = merged(found, table.get("set", {}))
                found = merged(found, _times(table.get("per_ipc", {}), ipc))
        return found

    def _check(self, table: Mapping[str, Any]) -> None:
        """Check one table of settings.

        Raises:
            UserError: saying what it may hold.
        """
        parts = table.keys() - {"source"}
        known = {"when", "set", "per_ipc"}
        if not {"when"} < parts <= known or not all(isinstance(table[part], Mapping) for part in parts):
            raise UserError(
                f"recipe {self.name!r}: a table of settings takes when, set or per_ipc, and source; "
                "the first three are tables"
            )
        names = table["when"].get("dataset", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"recipe {self.name!r}: dataset is a list of names, not {names!r}")
        bounds = [table["when"].get(bound, 0) for bound in ("ipc_min", "ipc_max")]
        if not all(isinstance(number, int) for number in bounds):
            raise UserError(f"recipe {self.name!r}: ipc_min and ipc_max are whole numbers")
        if not all(isinstance(value, (int, float)) for value in dotted(table.get("per_ipc", {})).values()):
            raise UserError(f"recipe {self.name!r}: per_ipc holds numbers, to be multiplied by the IPC")


RECIPES = Presets("recipes", "method")


def load_recipe(name: str) -> Recipe:
    """Read a recipe by name, or from the path of a TOML file.

    Raises:
        UserError: there is no such recipe, or the file is not one.
    """
    table = RECIPES.read(name)
    if str(table.get("base", "")).endswith(".toml"):  # beside the recipe, wherever it is read from
        table["base"] = str(RECIPES.find(name).parent / table["base"])
    return validated(Recipe, table, f"recipe {table['name']!r}: key", known_keys(Recipe))


def _times(options: Mapping[str, Any], ipc: int) -> dict[str, Any]:
    """Multiply every number in nested options."""
    return {
        key: _times(value, ipc) if isinstance(value, Mapping) else value * ipc
        for key, value in options.items()
    }


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class ExpertRecipeSettings:
    """Options of a recipe for some data sets, and where they come from."""

    when: dict[Literal["dataset"], list[str]]
    set: dict[str, Any]
    source: str


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class ExpertRecipe:
    """How a published method trains its experts."""

    name: str
    title: str
    paper: str
    follows: Literal["paper", "code"]
    """Which one the settings follow where the paper and its code differ."""
    defaults: dict[str, Any]
    settings: tuple[ExpertRecipeSettings, ...] = ()

    def options(self, dataset: str) -> dict[str, Any]:
        """Return the options for a data set: the defaults under every table that names it."""
        found: dict[str, Any] = {"recipe": self.name, **self.defaults}
        for table in self.settings:
            if dataset in table.when.get("dataset", [dataset]):
                found = merged(found, table.set)
        return found


EXPERT_RECIPES = Presets("experts", "recipe of experts")


def load_expert_recipe(name: str) -> ExpertRecipe:
    """Read a recipe by name, or from the path of a TOML file.

    Raises:
        UserError: there is no such recipe, or the file is not one.
    """
    known = [each.name for each in dataclasses.fields(ExpertRecipe)]
    return validated(ExpertRecipe, EXPERT_RECIPES.read(name), f"recipe {name!r}: key", known)
