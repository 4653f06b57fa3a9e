"""Nested options, as TOML has them: joined, read from texts, and named by dotted keys."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from dsdistill.errors import UserError


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested options over others; tables merge, anything else replaces."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both_tables = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both_tables else value  # type: ignore[arg-type]
    return result


def table_at(options: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Return a table in nested options; empty where there is none."""
    found: Any = options
    for key in keys:
        found = found.get(key, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def parsed_override(text: str) -> dict[str, Any]:
    """Return the option that a text like ``optimiser.lr=0.5`` sets; a value that is not TOML is a string.

    Raises:
        UserError: it is no key and value.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set takes key=value, not {text!r}; for example --set optimiser.lr=0.5")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return parsed


def data_options(
    name: str | None,
    root: str | Path | None,
    size: int | None,
    channels: int | None,
    zca: bool | None,
    download: bool,
) -> dict[str, Any]:
    """Return the options of the data that were given, as a config file has them."""
    said = {"name": name, "root": str(root) if root else None, "size": size, "channels": channels}
    said |= {"zca": zca, "download": download or None}
    return {key: value for key, value in said.items() if value is not None}


def with_absolute_paths(given: Mapping[str, Any]) -> dict[str, Any]:
    """Make paths absolute: a config is replayed, and a set evaluated, from other folders too."""

    def absolute(path: Any) -> str:
        return str(Path(str(path)).expanduser().absolute())

    result = dict(given)
    data = dict(given["data"])
    kind, colon, folder = str(data["name"]).partition(":")
    if colon and folder:
        data["name"] = f"{kind}:{absolute(folder)}"
    if data.get("root"):
        data["root"] = absolute(data["root"])
    result["data"] = data
    if path := table_at(result, "engine", "supply").get("path"):
        result = merged(result, {"engine": {"supply": {"path": absolute(path)}}})
    for key in ("method", "protocol"):
        if str(given.get(key, "")).endswith(".toml"):
            result[key] = absolute(given[key])
    return result


def known_keys(kind: type[Any], prefix: str = "") -> list[str]:
    """List the dotted keys of a config dataclass, those of every engine included."""
    keys: list[str] = []
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is ClassVar:
            continue
        nested = [kind for kind in (get_args(hint) or (hint,)) if dataclasses.is_dataclass(kind)]
        if nested:
            keys += [key for each in nested for key in known_keys(each, f"{prefix}{name}.")]  # type: ignore[arg-type]
        elif not name.startswith("__"):
            keys.append(prefix + name)
    return list(dict.fromkeys(keys))
