"""Options that are one of several dataclasses, told apart by their ``kind``: engines, discrepancies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import metadata
from typing import Annotated, Any, TypeVar, Union, get_args, get_type_hints

from pydantic import Field, GetCoreSchemaHandler, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from dsdistill.errors import UserError
from dsdistill.plugs import Registry, cause

C = TypeVar("C", bound=type[Any])

UNKNOWN_KIND = "unknown_kind"
"""The type of pydantic's error for a kind that there is not."""


class Kinds(Registry[type[Any]]):
    """The dataclasses that an option may be. Programs and installed packages add theirs by a decorator.

    ``Annotated[Base, kinds]`` makes a field of them: its table says in ``kind`` which one it holds.
    """

    def __init__(
        self, noun: str, group: str, base: type[Any], own: tuple[type[Any], ...], register: str
    ) -> None:
        """Begin with the package's own ones.

        Args:
            noun, group: as of `Registry`.
            base: of all of them.
            own: dataclasses derived from it.
            register: the name of the public decorator, for messages.
        """
        super().__init__(noun, group, {kind_of(each): each for each in own})
        self._base, self._register = base, register
        self._broken: dict[str, UserError] = {}

    def register(self, added: C) -> C:
        """Add a dataclass, and return it.

        Args:
            added: derived from the base, with ``kind: Literal["NAME"] = "NAME"``.

        Raises:
            UserError: it is something else, an option has a type that TOML cannot hold, or the kind is taken.
        """
        self.add(self._checked_kind(added), added)
        return added

    def _checked(self, point: metadata.EntryPoint) -> type[Any]:
        """Load an entry point, whose name is the kind.

        Raises:
            UserError: it is no such dataclass, or is named otherwise.
        """
        added: type[Any] = point.load()
        if (kind := self._checked_kind(added)) != point.name:
            raise UserError(f"the entry point {point.name!r} of {self.group} is of kind {kind!r}; rename one")
        return added

    def _checked_kind(self, added: Any) -> str:
        """Return the kind of a class that can be one of these.

        Raises:
            UserError: saying why it cannot.
        """
        name = getattr(added, "__name__", repr(added))
        derived = isinstance(added, type) and issubclass(added, self._base)
        if not derived or "__dataclass_params__" not in vars(added):
            raise UserError(
                f"{self._register} takes a dataclass derived from dsdistill.{self._base.__name__}, and "
                f"{name} is none: put @{self._register} above @dataclass(frozen=True, kw_only=True)"
            )
        if missing := sorted(added.__abstractmethods__):
            raise UserError(f"{self.noun} {name} lacks the method {missing[0]}")
        try:
            kind = kind_of(added)
            TypeAdapter(added)
        except (PydanticUserError, NameError, TypeError) as error:
            raise UserError(
                f"{self.noun} {name} has an option of a type that TOML cannot hold ({cause(error)}); options "
                "are numbers, texts, booleans, Literals, lists, and dataclasses of these"
            ) from error
        if not kind:
            raise UserError(f'{self.noun} {name} has no name: give it kind: Literal["NAME"] = "NAME"')
        return kind

    def members(self) -> tuple[type[Any], ...]:
        """Return all classes. What an installed package cannot load is left out, until it is asked for."""
        classes = []
        for name in self.names():
            try:
                classes.append(self.find(name))
            except UserError as error:
                self._broken[name] = error
        return tuple(each for each in classes if each is not None)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of a table of one of these."""
        members = self.members()
        if len(members) == 1:
            union = handler.generate_schema(members[0])
        else:
            union = handler.generate_schema(Annotated[Union[members], Field(discriminator="kind")])  # noqa: UP007
        return core_schema.no_info_before_validator_function(self._known, union)

    def _known(self, value: Any) -> Any:
        """Refuse a table of a kind that there is not."""
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if not isinstance(kind, str) or kind in self._own or kind in self._additions:
            return value
        if kind in self._broken:
            raise self._broken[kind]
        hint = (
            f"a program adds its own by {self._register}, a package by the entry points {self.group}, a "
            'recipe by plugin = "FILE.py"'
        )
        raise PydanticCustomError(UNKNOWN_KIND, "{hint}", {"tag": kind, "tags": self.names(), "hint": hint})


def kind_of(dataclass: type[Any]) -> str:
    """Return the ``kind`` of a dataclass: the default of that field; empty if there is none."""
    hint = get_type_hints(dataclass).get("kind")
    values = get_args(hint)
    return str(values[0]) if len(values) == 1 and values == (getattr(dataclass, "kind", None),) else ""


def tables_of(hint: Any) -> tuple[type[Any], ...]:
    """Return the dataclasses that an option of a type may be; none of one that is no table.

    Args:
        hint: its type, with `Annotated`.
    """
    for marker in getattr(hint, "__metadata__", ()):
        if isinstance(marker, Kinds):
            return marker.members()
    if hasattr(hint, "__metadata__"):
        return tables_of(hint.__origin__)
    types = get_args(hint) or (hint,)
    return tuple(each for each in types if isinstance(each, type) and dataclasses.is_dataclass(each))


def without_other_kinds(usual: Mapping[str, Any], chosen: Mapping[str, Any], of: type[Any]) -> dict[str, Any]:
    """Return usual options of a dataclass, without what belongs to kinds that a choice replaces.

    Where ``chosen`` names another kind of a table inside than ``usual`` has, that table keeps the options
    that the chosen kind has, too. Kinds that there are not are left for `validate` to refuse.

    Args:
        usual: nested options, such as a recipe's.
        chosen: nested options that will be merged over them, and that stay as they are.
        of: the dataclass of both.
    """
    hints, options = get_type_hints(of, include_extras=True), dict(usual)
    for name, table in usual.items():
        over = chosen.get(name)
        if name not in hints or not isinstance(table, Mapping) or not isinstance(over, Mapping):
            continue
        usual_kind = table.get("kind", "")
        kind = over.get("kind", usual_kind)
        member = next((each for each in tables_of(hints[name]) if kind_of(each) == kind), None)
        if member is None:
            continue
        if kind != usual_kind:
            own = {each.name for each in dataclasses.fields(member)}
            table = {key: value for key, value in table.items() if key in own}
        options[name] = without_other_kinds(table, over, member)
    return options
