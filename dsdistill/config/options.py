"""Nested options, as TOML has them: merged, parsed from texts, compared, and named by dotted keys."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, get_origin, get_type_hints

import tomli_w

from dsdistill.config.data_names import gone, is_memory, path_of
from dsdistill.config.initial_names import is_set_file
from dsdistill.config.kinds import tables_of
from dsdistill.errors import UserError, quoted
from dsdistill.files import expanded, is_text, parse_toml
from dsdistill.files.documents import DEEPEST
from dsdistill.plugs import Registry, absolute_reference, names_in


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested options; those of ``over`` win. Tables merge, anything else replaces."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both_tables = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merge(below, value) if both_tables else value  # type: ignore[arg-type]
    return result


def explicit_options(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested options without those that are None, and without tables that are empty then.

    >>> explicit_options({"ipc": 10, "seed": None, "compute": {"device": None}})
    {'ipc': 10}
    """
    options: dict[str, Any] = {}
    for key, value in table.items():
        option = explicit_options(value) if isinstance(value, Mapping) else value
        if option is not None and option != {}:
            options[key] = option
    return options


def as_toml(options: Mapping[str, Any]) -> str:
    """Write the options of a run or of experts as TOML; a comment says what it takes to use them again.

    Args:
        options: such as TOML can hold.
    """
    name = str(table_at(options, "data").get("name"))
    comment = f"# {gone(name)}\n" if is_memory(name) else ""
    return comment + tomli_w.dumps(options)


def table_at(options: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Return a table in nested options; empty where there is none."""
    table: Any = options
    for key in keys:
        table = table.get(key, {}) if isinstance(table, Mapping) else {}
    return table if isinstance(table, Mapping) else {}


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested options to dotted keys.

    >>> flatten({"optimiser": {"lr": 1.0, "momentum": 0.5}})
    {'optimiser.lr': 1.0, 'optimiser.momentum': 0.5}
    """
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def nest(key: str, value: Any) -> dict[str, Any]:
    """Return the nested options of one dotted key.

    >>> nest("optimiser.lr", 1.0)
    {'optimiser': {'lr': 1.0}}
    """
    *tables, last = key.split(".")
    options = {last: value}
    for table in reversed(tables):
        options = {table: options}
    return options


class Change(NamedTuple):
    """An option that differs between two configs, with its value in both; None where it is absent."""

    key: str
    before: Any
    after: Any


def difference(
    before: Mapping[str, Any], after: Mapping[str, Any], ignoring: Collection[str] = ()
) -> list[Change]:
    """Return the options in which two configs differ, by their dotted keys in alphabetical order.

    Args:
        before, after: nested options.
        ignoring: dotted keys of options that are not compared, or of whole tables.
    """
    one, other = flatten(before), flatten(after)
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return [Change(key, one.get(key), other.get(key)) for key in keys if not _is_in(key, ignoring)]


def decisions(asked: Mapping[str, Any], decided: Mapping[str, Any]) -> str:
    """Say what a run decided by itself.

    Args:
        asked, decided: nested options, before and after.

    >>> decisions({"compute": {"device": "auto"}}, {"compute": {"device": "cpu"}})
    'decided: compute.device=cpu'
    """
    words = [f"{key}={str(after).lower()}" for key, _, after in difference(asked, decided)]
    return "decided: " + (", ".join(words) or "nothing")


def _is_in(key: str, names: Collection[str]) -> bool:
    """Whether a dotted key is one of these, or lies in one of these tables."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def parse_override(text: str) -> dict[str, Any]:
    """Return the option that a text like ``optimiser.lr=0.5`` sets; a value that is not TOML is a string.

    Raises:
        UserError: the text is not ``key=value``, or no text.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or key.count(".") >= DEEPEST or not is_text(text):
        raise UserError(f"--set takes key=value, not {quoted(text)}; for example --set optimiser.lr=0.5")
    try:
        option = parse_toml(f"value = {value}")["value"]
    except ValueError:
        option = value.strip()
    return nest(key.strip(), option)


def data_options(
    name: str | None,
    root: str | Path | None,
    size: int | None,
    channels: int | None,
    zca: bool | None,
    download: bool,
) -> dict[str, Any]:
    """Return the explicit options of the data, as a config file has them."""
    options = {"name": name, "root": str(root) if root else None, "size": size, "channels": channels}
    return explicit_options(options | {"zca": zca, "download": download or None})


_LIBRARIES = ("torchvision:", "timm:")
"""What begins a name of published weights, which is no path."""


def with_absolute_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """Make paths absolute: a config is replayed, and a set evaluated, from other folders too."""

    def absolute(path: Any) -> str:
        return str(expanded(str(path)).absolute())

    result = dict(options)
    data = dict(options["data"])
    name = str(data["name"])
    if place := path_of(name):
        data["name"] = f"{name.removesuffix(place)}{absolute(place)}"
    if data.get("root"):
        data["root"] = absolute(data["root"])
    result["data"] = data
    if path := table_at(result, "engine", "supply").get("path"):
        several = [str(path)] if expanded(str(path)).exists() else list(map(str.strip, str(path).split(",")))
        paths = [each if each.startswith(_LIBRARIES) else absolute(each) for each in several if each]
        result = merge(result, {"engine": {"supply": {"path": ",".join(paths)}}})
    if is_set_file(init := str(options.get("init", ""))):
        result["init"] = absolute(init)
    for key in ("method", "protocol"):
        if str(options.get(key, "")).endswith(".toml"):
            result[key] = absolute(options[key])
    for key in ("network", "student"):
        if isinstance(network := options.get(key), str):
            result[key] = ",".join(map(absolute_reference, names_in(network)))
    return result


def known_keys(kind: type[Any]) -> list[str]:
    """List the dotted keys of a config dataclass, including those of every engine."""
    return list(_known_keys(kind, "", Registry.generation))


def _find_keys(kind: Any, prefix: str, generation: int) -> tuple[str, ...]:
    keys: list[str] = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if get_origin(hint) is ClassVar:
            continue
        if tables := tables_of(hint):
            keys += [key for each in tables for key in _known_keys(each, f"{prefix}{name}.", generation)]
        elif not name.startswith("__"):
            keys.append(prefix + name)
    return tuple(dict.fromkeys(keys))


_known_keys: Callable[[Any, str, int], tuple[str, ...]] = functools.lru_cache(256)(_find_keys)
