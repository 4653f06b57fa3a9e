"""Options that were renamed: the old names keep working, with one notice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dsdistill.config.options import merge, nest, table_at

RENAMED_KEYS: dict[str, str] = {
    "formation": "multi_formation",
    "engine.training": "engine.supply",
    "optimiser.stepping": "optimiser.updates",
}
"""Old dotted key of a run's config, to the new one; a table is renamed with all it holds."""

RENAMED_VALUES: dict[str, dict[str, str]] = {"optimiser.updates": {"together": "joint"}}
"""New dotted key to its renamed values."""

IMPLIED: dict[str, dict[str, Any]] = {"engine.training": {"kind": "trained"}}
"""What an old table stood for without saying so."""


def modernise(options: Mapping[str, Any], renamed: list[str] | None = None) -> dict[str, Any]:
    """Return nested options under their present names.

    Args:
        options: of a config file, a recipe or a caller, in old names, new ones or both; the new ones win.
        renamed: a phrase is appended for every old name; `notice` makes a sentence of them.

    >>> renamed = []
    >>> modernise({"formation": {"factor": 2}}, renamed)
    {'multi_formation': {'factor': 2}}
    >>> notice(renamed)
    "option 'formation' is now called 'multi_formation'; the old name still works"
    """
    result, phrases = dict(options), renamed if renamed is not None else []
    for before, now in RENAMED_KEYS.items():
        *tables, key = before.split(".")
        if key not in table_at(result, *tables):
            continue
        phrases.append(f"{before!r} is now called {now!r}")
        value = table_at(result, *tables)[key]
        if before in IMPLIED and isinstance(value, Mapping):
            value = {**IMPLIED[before], **value}
        result = merge(nest(now, value), _without(result, tables, key))
    for key, values in RENAMED_VALUES.items():
        *tables, last = key.split(".")
        value = table_at(result, *tables).get(last)
        if isinstance(value, str) and value in values:
            result = merge(result, nest(key, values[value]))
            phrases.append(f"{last} = {value!r} is now called {values[value]!r}")
    return result


def notice(renamed: Sequence[str]) -> str:
    """Say which options were set by their old names."""
    phrases = list(dict.fromkeys(renamed))
    works = "the old name still works" if len(phrases) == 1 else "the old names still work"
    return f"option {', '.join(phrases)}; {works}"


def _without(options: Mapping[str, Any], tables: list[str], key: str) -> dict[str, Any]:
    """Return nested options without one key; a table that it leaves empty stays."""
    if not tables:
        return {name: value for name, value in options.items() if name != key}
    first, *rest = tables
    return {**options, first: _without(options[first], rest, key)}
