"""Nested options: merged, flattened, compared."""

from __future__ import annotations

import pytest

from dsdistill.config.options import (
    Change,
    data_options,
    difference,
    explicit_options,
    flatten,
    merge,
    parse_override,
)
from dsdistill.errors import UserError

NESTED = {"a": {"x": 1, "y": {"z": 2}}, "b": 1}


def test_merged_lays_tables_over_tables() -> None:
    assert merge(NESTED, {"a": {"y": {"z": 3}}}) == {"a": {"x": 1, "y": {"z": 3}}, "b": 1}
    assert merge(NESTED, {"a": 4, "c": 5}) == {"a": 4, "b": 1, "c": 5}
    assert NESTED["a"] == {"x": 1, "y": {"z": 2}}
    assert flatten(NESTED) == {"a.x": 1, "a.y.z": 2, "b": 1}


def test_the_difference_of_two_configs_is_named_by_key() -> None:
    later = merge(NESTED, {"a": {"y": {"z": 3}}, "c": 4})
    assert difference(NESTED, NESTED) == []
    assert difference(NESTED, later) == [Change("a.y.z", 2, 3), Change("c", None, 4)]
    assert difference(later, {}) == [
        Change("a.x", 1, None),
        Change("a.y.z", 3, None),
        Change("b", 1, None),
        Change("c", 4, None),
    ]


def test_options_and_whole_tables_can_be_ignored_in_a_difference() -> None:
    before, after = {"compute": {"chunk": 1}, "computer": 1, "seed": 1}, {}
    assert [key for key, *_ in difference(before, after, ignoring=["compute"])] == ["computer", "seed"]
    assert [key for key, *_ in difference(before, after, ignoring=["compute.chunk", "seed"])] == ["computer"]


def test_options_left_out_are_not_explicit() -> None:
    assert explicit_options({"a": None, "b": {"c": None}, "d": {}, "e": False, "f": 0}) == {
        "e": False,
        "f": 0,
    }
    assert data_options(None, None, None, None, None, download=False) == {}
    assert data_options("digits", "/data", None, 1, False, download=True) == {
        "name": "digits",
        "root": "/data",
        "channels": 1,
        "zca": False,
        "download": True,
    }


@pytest.mark.parametrize("text", [f"{'a.' * 20_000}b=1", "method=\udcff", "=3", "nonsense"])
def test_overrides_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--set takes key=value") as caught:
        parse_override(text)
    assert len(str(caught.value)) < 200


def test_overrides_that_are_no_toml_are_texts() -> None:
    assert parse_override("path=[[[" + "[" * 5000)["path"].startswith("[[[")
    assert parse_override(f"ipc={'9' * 5000}") == {"ipc": "9" * 5000}
