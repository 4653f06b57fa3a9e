"""Nested options: merged, flattened, compared."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dsdistill.config.options import (
    Change,
    as_toml,
    data_options,
    difference,
    explicit_options,
    flatten,
    merge,
    parse_override,
    with_absolute_paths,
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


def test_only_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names = {
        "folder:pets": f"folder:{tmp_path}/pets",
        "hf:./pets": f"hf:{tmp_path}/pets",
        "hf:org/pets": "hf:org/pets",
        "memory:pets": "memory:pets",
        "digits": "digits",
    }
    assert {name: with_absolute_paths({"data": {"name": name}})["data"]["name"] for name in names} == names
    starts = {"real": "real", "set.h5": f"{tmp_path}/set.h5", "sets/dm": f"{tmp_path}/sets/dm"}
    options = {"data": {"name": "digits"}}
    assert {init: with_absolute_paths(options | {"init": init})["init"] for init in starts} == starts


def test_a_config_of_data_in_memory_says_that_they_are_needed_again() -> None:
    for name, lines in (("digits", 2), ("memory:pets", 3)):
        text = as_toml({"data": {"name": name}})
        assert tomllib.loads(text) == {"data": {"name": name}}
        assert len(text.splitlines()) == lines
    assert text.startswith("# memory:pets was data in memory, which no file holds")
