"""Checking tables of options against dataclasses, with errors a person can act on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from dsdistill.errors import UserError, unknown

T = TypeVar("T")


def forbid_extra(options: type[T]) -> type[T]:
    """Decorate a dataclass that `validated` makes from a table: a misspelt key is an error."""
    options.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return options


_EXTRA = ("unexpected_keyword_argument", "extra_forbidden")
_MISSING = ("missing", "missing_argument")
_NO_TABLE = ("dataclass_type", "model_attributes_type")


def validated(kind: type[Any], table: Mapping[str, Any], what: str, known: Iterable[str]) -> Any:
    """Make a dataclass from a table of options.

    Args:
        kind: the dataclass; others may be nested in it.
        table: nested options.
        what: what the options are, for messages: ``"option"``, ``"protocol 'dm': key"``.
        known: every dotted key there is, to suggest the nearest from.

    Raises:
        UserError: for the first option that is unknown, missing, of a wrong type or out of range.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(table))
    except ValidationError as error:
        raise _sentence(error, table, what, list(known)) from None


def dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested options to ``{"optimiser.lr": 1.0, …}``."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= dotted(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _sentence(error: ValidationError, table: Mapping[str, Any], what: str, known: list[str]) -> UserError:
    # A misspelt key comes first: it is why the right one is missing.
    first = min(error.errors(), key=lambda each: each["type"] not in _EXTRA)
    key = _key(first["loc"], known)
    if first["type"] == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in first["ctx"]["expected_tags"].split(",")]
        return unknown(
            f"{what} '{key}.{first['ctx']['discriminator'].strip(chr(39))}'", first["ctx"]["tag"], tags
        )
    if first["type"] == "union_tag_not_found":
        tag = first["ctx"]["discriminator"].strip("'")
        return UserError(f"{what} '{key}.{tag}' is missing: it says what the other keys of {key!r} belong to")
    if first["type"] in _EXTRA:
        written = next((full for full in dotted(table) if full.startswith(f"{key}.")), key)
        if written in known and any("." in str(part) for part in first["loc"]):
            return UserError(
                f"{what} {written!r} is one key with dots in it: write it without quotes, or nested"
            )
        if written in known:
            return UserError(
                f"{what} {written!r} belongs to another kind than the one chosen: leave out one of the two, "
                "or begin from a method of that kind if a recipe gave it"
            )
        return unknown(what, written, known)
    if first["type"] in _MISSING:
        return UserError(f"{what} {key!r} is missing")
    if first["type"] in _NO_TABLE:
        inside = next((full for full in known if full.startswith(f"{key}.")), key)
        given = first["input"]
        return UserError(f"{what} {key!r} is a table, not {given!r}; give its keys, such as {inside}")
    same = [
        each["msg"] for each in error.errors() if _key(each["loc"], known) == key
    ]  # one per branch of a union
    reasons = " or ".join(message[:1].lower() + message[1:] for message in same)
    return UserError(f"{what} {key!r} is {first['input']!r}: {reasons}")


def _key(location: tuple[int | str, ...], known: list[str]) -> str:
    """Join where an error is, without the branches of unions that pydantic names in between."""
    types = ("float", "int", "bool", "str")
    parts = [str(part) for part in location]

    def holds(key: str) -> bool:
        return any(each == key or each.startswith(f"{key}.") for each in known)

    key = ""
    for position, part in enumerate(parts):
        longer = f"{key}.{part}" if key else part
        last = position == len(parts) - 1
        # A branch may be called as an option is: then what follows goes on from where the option would be.
        passed = not last and longer in known and holds(f"{key}.{parts[position + 1]}")
        branch = part in types or {"[", "-"} & set(part) or passed
        if not branch and (last or holds(longer)):
            key = longer
    return key
