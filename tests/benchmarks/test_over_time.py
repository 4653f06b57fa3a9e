"""Accuracy against minutes: which minutes a set is said to have had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from benchmarks import over_time
from benchmarks.over_time import distilled, draw
from dsdistill.data.preprocess import Standardise
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet


def write_set(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images, labels = torch.zeros(2, 1, 4, 4), torch.arange(2)
    attributes = {"seconds": seconds}
    scale = Standardise.of((0.5,), (0.5,))
    set_file.write(path, DistilledSet(images, labels, ("a", "b"), scale, attributes=attributes), "float32")


def row(name: str, minutes: float, mean: float) -> dict[str, Any]:
    values = [mean, mean]
    return {"set": name, "minutes": minutes, "mean": mean, "std": 0.5, "values": values, "epochs": 7}


def test_minutes_of_a_set_hold_those_of_its_experts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = []

    def fake_distill(output: Path, *, run_dir: Path, budget: str, **options: Any) -> None:
        budgets.append(budget)
        for iteration, seconds in ((3, 24.0), (7, 36.0)):
            write_set(run_dir / f"snapshot-{iteration:09d}.h5", seconds)
        write_set(output, 48.0)

    monkeypatch.setattr(dsdistill, "distill", fake_distill)
    monkeypatch.setenv("DSDISTILL_CACHE", "restored afterwards")
    sets = distilled(tmp_path / "dm", "digits", "dm", ipc=1, minutes=1.0)
    assert [minutes for _, minutes in sets] == pytest.approx([0.6, 0.8, 1.0])  # 12 s went to experts
    assert distilled(tmp_path / "dm", "digits", "dm", ipc=1, minutes=1.0) == sets
    assert budgets == ["60s"]  # a finished run is not repeated


def test_the_chart_has_a_line_of_each_method_and_one_across_of_each_kind_of_real_images() -> None:
    rows = [row("dm", 1.0, 60.0), row("random", 0.0, 50.0), row("herding", 0.0, 55.0), row("dm", 2.0, 70.0)]
    picture = draw(rows, "title")
    (panel,) = picture.axes
    lines = [list(line.get_ydata()) for line in panel.get_lines()]
    assert [60.0, 70.0] in lines
    assert [50.0, 50.0] in lines
    assert [55.0, 55.0] in lines
    assert any("2 students, 7 epochs" in text.get_text() for text in picture.texts)
    assert set(over_time.METHODS) == set(over_time.COLOURS)
