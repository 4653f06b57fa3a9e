"""Extrapolating from a few classes to ImageNet-1K, and from one process to several."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import extrapolation
from benchmarks.cost_scaling import Fit
from benchmarks.extrapolation import QUICK, WORKS, Work, iteration_seconds, rows_of

LINE = Fit(fixed=5.0, each=2.0, largest_deviation=0.0)
WORK = Work("dm", {}, 64, 256)


def test_bytes_are_those_of_every_synthetic_pixel() -> None:
    assert WORK.pixel_bytes == 1000 * 10 * 3 * 64 * 64 * 4


def test_one_process_has_all_classes_and_adds_up_nothing() -> None:
    assert iteration_seconds(LINE, WORK, 1, times=1.0, bandwidth=1.0) == pytest.approx(2005)


def test_several_share_the_classes_but_not_what_is_fixed() -> None:
    computing = (5 + 2 * 334) / 10  # of 1,000 classes, one of three processes has 334
    assert iteration_seconds(LINE, WORK, 3, times=10.0, bandwidth=float("inf")) == pytest.approx(computing)


def test_a_batch_is_not_divided() -> None:
    batches = Work("sre2l", {}, 224, 16, parts=100)
    computing = 5 + 2 * 13 * 10  # one of eight processes has 13 batches of ten classes each
    assert iteration_seconds(LINE, batches, 8, times=1.0, bandwidth=float("inf")) == pytest.approx(computing)


def test_each_process_sends_nearly_twice_the_pixels() -> None:
    bandwidth = 1e9
    sent = iteration_seconds(LINE, WORK, 8, 1.0, bandwidth) - iteration_seconds(LINE, WORK, 8, 1.0, 1e99)
    assert sent == pytest.approx(2 * 7 / 8 * WORK.pixel_bytes / bandwidth)


def test_rows_say_how_much_of_the_processes_serves_the_work() -> None:
    rows = rows_of(WORK, LINE, {"core": (1.0, 1e99)}, ranks=(1, 4))
    assert [row["efficiency"] for row in rows] == pytest.approx([1.0, 2005 / (4 * 505)])
    assert rows[1]["run_seconds"] == pytest.approx(505 * extrapolation.ITERATIONS["dm"])


def test_an_iteration_of_a_few_classes_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extrapolation, "quiet_allocator", lambda: None)
    monkeypatch.setattr(extrapolation.torch, "set_num_threads", lambda count: None)
    assert extrapolation.seconds_of(QUICK[0], classes=2, rounds=1) > 0


def test_the_record_says_what_was_measured_and_what_assumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extrapolation, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(extrapolation, "bandwidth_here", lambda size: 1e8)
    monkeypatch.setattr(extrapolation, "in_process", lambda function, work, classes, rounds: 1.0 + classes)
    monkeypatch.setattr(sys, "argv", ["extrapolation.py", "--times", "100"])
    extrapolation.main()
    record = json.loads((tmp_path / "extrapolation.json").read_text())
    assert record["measured_bandwidth"] == 1e8
    assert record["assumed"] == {"times": 100.0, "bandwidth": 1e11}
    assert [line["measured"] for line in record["lines"]] == [[2.0, 3.0, 5.0]] * len(WORKS)
    assert len(record["rows"]) == 2 * len(WORKS) * len(extrapolation.RANKS)
