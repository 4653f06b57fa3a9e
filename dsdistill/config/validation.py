"""Checking tables of options against dataclasses. Errors say what is wrong and how to mend it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from dsdistill.config.kinds import UNKNOWN_KIND
from dsdistill.config.options import flatten
from dsdistill.errors import UserError, quoted, unknown
from dsdistill.plugs import Registry

T = TypeVar("T")


def forbid_extra(options: type[T]) -> type[T]:
    """Decorate a dataclass whose tables `validate` checks: misspelt keys and infinite numbers are errors."""
    options.__pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # type: ignore[attr-defined]
    return options


_EXTRA = ("unexpected_keyword_argument", "extra_forbidden")
_MISSING = ("missing", "missing_argument")
_NO_TABLE = ("dataclass_type", "model_attributes_type")


def validate(kind: type[Any], table: Mapping[str, Any], what: str, known: Iterable[str]) -> Any:
    """Make a dataclass from a table of options.

    Args:
        kind: the dataclass; others may be nested in it.
        table: nested options.
        what: the noun for an option in error messages: ``"option"``, ``"protocol 'dm': key"``.
        known: all dotted keys, from which the error for a misspelt one suggests the nearest.

    Raises:
        UserError: for the first option that is unknown, of a wrong type or out of range, or for all that are
            missing.
    """
    for key, value in flatten(table).items():
        if _is_too_long(value):
            raise UserError(f"{what} {quoted(key)} is an integer of more than 64 bits; choose a smaller one")
    try:
        result = _adapter(kind, Registry.generation).validate_python(dict(table))
    except ValidationError as error:
        raise _sentence(error, table, what, list(known)) from None
    except OverflowError as error:
        raise UserError(f"{what}: a number is too large ({error})") from error
    for key, value in _values(result, ""):
        if _is_too_long(value):  # the text of one, which pydantic takes for a number
            raise UserError(f"{what} {quoted(key)} is an integer of more than 64 bits; choose a smaller one")
    return result


def _new_adapter(kind: Any, generation: int) -> TypeAdapter[Any]:
    """Return the validator of a dataclass.

    Args:
        kind: the dataclass.
        generation: of the registries, whose content its options may be.
    """
    return TypeAdapter(kind)


_adapter: Callable[[Any, int], TypeAdapter[Any]] = functools.lru_cache(64)(_new_adapter)
"""The same, built once: that of a run's options takes tens of milliseconds."""


def _is_too_long(value: Any) -> bool:
    """Whether a value is an integer that no file can hold."""
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _values(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield all that a validated dataclass holds, with dotted keys."""
    parts: Iterable[tuple[Any, Any]] = ()
    if dataclasses.is_dataclass(value):
        parts = ((each.name, getattr(value, each.name)) for each in dataclasses.fields(value))
    elif isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        yield key, value
    for name, inside in parts:
        yield from _values(inside, f"{key}.{name}" if key else str(name))


def _sentence(error: ValidationError, table: Mapping[str, Any], what: str, known: list[str]) -> UserError:
    """Word the first problem of a validation error."""
    # A misspelt key comes first: it is the reason why the right one is missing.
    problems = error.errors()
    tables = [each for each in problems if not _is_table_for_a_word(each)]  # of a union, what was meant
    first = min(tables or problems, key=lambda problem: problem["type"] not in _EXTRA)
    key = _key(first["loc"], known)
    if first["type"] == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in first["ctx"]["expected_tags"].split(",")]
        return _unknown(
            f"{what} '{key}.{first['ctx']['discriminator'].strip(chr(39))}'", first["ctx"]["tag"], tags
        )
    if first["type"] == "union_tag_not_found":
        tag = first["ctx"]["discriminator"].strip("'")
        return UserError(f"{what} '{key}.{tag}' is missing: it says what the other keys of {key!r} belong to")
    if first["type"] in _EXTRA:
        return _unexpected(key, first["loc"], table, what, known)
    if first["type"] == UNKNOWN_KIND:
        problem = str(_unknown(f"{what} '{key}.kind'", first["ctx"]["tag"], first["ctx"]["tags"]))
        return UserError(problem if "did you mean" in problem else f"{problem}; {first['msg']}")
    if first["type"] in _MISSING:
        missing = [_key(each["loc"], known) for each in error.errors() if each["type"] in _MISSING]
        return UserError(_all_missing(what, list(dict.fromkeys(missing))))
    if first["type"] in _NO_TABLE:
        inside = next((full for full in known if full.startswith(f"{key}.")), key)
        return UserError(
            f"{what} {key!r} is a table, not {quoted(first['input'])}; give its keys, such as {inside}"
        )
    # One message per branch of a union.
    messages = [problem["msg"] for problem in error.errors() if _key(problem["loc"], known) == key]
    reasons = " or ".join(message[:1].lower() + message[1:] for message in messages)
    return UserError(f"{what} {key!r} is {quoted(first['input'])}: {reasons}")


def _is_table_for_a_word(problem: Mapping[str, Any]) -> bool:
    """Whether an option that may be a word or a table was refused as a word, and is a table."""
    return problem["type"] == "literal_error" and isinstance(problem["input"], Mapping)


def _all_missing(what: str, keys: list[str]) -> str:
    """Name options that are missing."""
    *others, last = map(repr, keys)
    return f"{what}s {', '.join(others)} and {last} are missing" if others else f"{what} {last} is missing"


def _unexpected(
    key: str, location: tuple[int | str, ...], table: Mapping[str, Any], what: str, known: list[str]
) -> UserError:
    """Word the error for a key that the dataclass does not have."""
    name = next((full for full in flatten(table) if full.startswith(f"{key}.")), key)
    if name in known and any("." in str(part) for part in location):
        return UserError(f"{what} {name!r} is one key with dots in it: write it without quotes, or nested")
    if name in known:
        return UserError(
            f"{what} {name!r} belongs to another kind than the one chosen: leave out one of the two, "
            "or begin from a method of that kind if a recipe gave it"
        )
    return _unknown(what, name, known)


def _unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """Word the error for an unknown name; what it is part of comes first."""
    part, colon, noun = what.rpartition(": ")
    return UserError(f"{part}{colon}{unknown(noun, name, known)}")


def _key(location: tuple[int | str, ...], known: list[str]) -> str:
    """Return the dotted key of an error's location, without the branches of unions that pydantic puts in."""
    types = ("float", "int", "bool", "str")
    parts = [str(part) for part in location]

    def exists(key: str) -> bool:
        return any(name == key or name.startswith(f"{key}.") for name in known)

    key = ""
    for position, part in enumerate(parts):
        longer = f"{key}.{part}" if key else part
        last = position == len(parts) - 1
        # A branch may have the name of an option: then the next part is a key beside that option, not in it.
        homonym = not last and longer in known and exists(f"{key}.{parts[position + 1]}")
        branch = part in types or {"[", "-"} & set(part) or homonym
        if not branch and (last or exists(longer)):
            key = longer
    return key
