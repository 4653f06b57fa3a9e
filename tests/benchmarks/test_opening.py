"""The benchmark of opening finds what it claims to measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.opening import WAYS, measured, scaling


@pytest.mark.slow
def test_a_second_opening_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.opening.time.sleep", lambda seconds: None)
    rows = measured(tmp_path, classes=3, per_class=200)
    assert [row["way"] for row in rows] == list(WAYS)
    assert {(row["images"], row["bytes"]) for row in rows} == {(600, 600 * 192)}
    assert rows[1]["seconds"] < rows[0]["seconds"]


def test_seconds_grow_with_files() -> None:
    told = scaling([{"way": "second", "seconds": 2.0, "images": 1000}])
    assert told["microseconds_a_file"] == {"second": 2000.0}
    assert told["extrapolated_imagenet_seconds"] == {"second": 2562.3}
