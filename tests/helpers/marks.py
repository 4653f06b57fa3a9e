"""Parameters of slow tests."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but_first(values: Iterable[Any]) -> list[Any]:
    """Return the parameters of a test; all but the first are slow."""
    one, *others = values
    return [one, *(pytest.param(*_values(other), marks=pytest.mark.slow) for other in others)]


def slow_if(names: Iterable[str], alike: Collection[str]) -> list[Any]:
    """Return names as parameters of a test; those that are like others are slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in alike else name for name in names]


def _values(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
