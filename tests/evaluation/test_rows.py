"""Rows and the names of sets."""

from __future__ import annotations

import dataclasses

import pytest

from dsdistill.evaluation.rows import FULL, Row, canonical, read_row


def row(name: str, values: list[float]) -> Row:
    return Row(name, "mlp", "dm", 10, 50.0, 1.25, values, 10, 10, 1.0)


@pytest.mark.parametrize(
    ("name", "today"),
    [("whole", FULL), ("whole@bytes", "full@bytes"), ("full", FULL), ("random-plain", "random-plain")],
)
def test_former_names_become_those_of_today(name: str, today: str) -> None:
    assert canonical(name) == row(name, [1.0]).set == today


def test_accuracy_has_a_deviation_where_there_are_several_students() -> None:
    assert row("random", [49.0, 51.0]).accuracy == "50.00 ± 1.25"
    assert row("random", [50.0]).accuracy == "50.00"


def test_a_stored_row_is_read_and_nothing_else() -> None:
    stored = dataclasses.asdict(row("whole", [50.0])) | {"date": "2026-01-02"}
    assert read_row(stored) == row("full", [50.0])
    for change in ({"mean": "x"}, {"values": []}, {"values": [1e9]}, {"std": float("nan")}, {"epochs": [1]}):
        assert read_row(stored | change) is None
    for other in ({"mean": 0.5}, {}, [], None, "row"):
        assert read_row(other) is None
