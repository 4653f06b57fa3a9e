"""Accuracy against minutes: which minutes a set is said to have had, and what its students learn from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import dsdistill
from benchmarks import isolation, over_time
from benchmarks.over_time import distilled, draw, evaluated
from dsdistill.data.preprocess import Standardise
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet


def write_set(path: Path, seconds: float, soft: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images, labels = torch.zeros(2, 1, 4, 4), torch.arange(2)
    attributes = {"seconds": seconds}
    scale = Standardise.of((0.5,), (0.5,))
    logits = torch.eye(2) if soft else None
    learned = DistilledSet(images, labels, ("a", "b"), scale, attributes=attributes, soft_labels=logits)
    set_file.write(path, learned, "float32")


def row(name: str, minutes: float, mean: float, regime: str = "HL") -> dict[str, Any]:
    shared = {"set": name, "minutes": minutes, "regime": regime, "epochs": 7}
    return shared | {"mean": mean, "std": 0.5, "values": [mean, mean]}


def test_minutes_of_a_set_are_those_of_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def distil(output: Path, *, run_dir: Path, budget: str, **options: Any) -> float:
        assert budget == "60s"
        for iteration, seconds in ((3, 24.0), (7, 36.0)):
            write_set(run_dir / f"snapshot-{iteration:09d}.h5", seconds)
        write_set(output, 48.0)
        return 66.0  # the last iteration has overshot, and 18 s went to experts and the start

    monkeypatch.setattr(isolation, "distil", distil)
    sets = distilled(tmp_path / "dm", "digits", "dm", ipc=1, minutes=1.0)
    assert [minutes for _, minutes in sets] == pytest.approx([0.7, 0.9, 1.1])
    assert sets[-1][0] == tmp_path / "dm" / "set.h5"


def test_a_set_with_soft_labels_has_students_of_hard_ones_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(file: Path, *, baselines: list[str], **options: Any) -> Any:
        soft = file.stem == "soft"
        regimes = {"distilled": "SL" if soft else "HL"} | dict.fromkeys(baselines, "HL")
        rows = [
            SimpleNamespace(set=name, regime=regime, mean=50.0, std=0.0, values=[50.0])
            for name, regime in regimes.items()
        ]
        return SimpleNamespace(rows=rows)

    monkeypatch.setattr(dsdistill, "evaluate", evaluate)
    found = {}
    for name in ("hard", "soft"):
        write_set(tmp_path / f"{name}.h5", 1.0, soft=name == "soft")
        rows = evaluated(tmp_path / f"{name}.h5", name, 2.0, ["random"])
        found[name] = [(each["set"], each["regime"], each["minutes"]) for each in rows]
    assert found["hard"] == [("hard", "HL", 2.0), ("random", "HL", 0.0)]
    assert found["soft"] == [("soft", "SL", 2.0), ("random", "HL", 0.0), ("soft", "HL", 2.0)]


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
    assert not any("soft labels" in text.get_text() for text in picture.texts)


def test_the_chart_has_a_dotted_line_of_students_that_learn_from_soft_labels() -> None:
    rows = [row("datm", 1.0, 80.0, "SL"), row("datm", 1.0, 70.0), row("random", 0.0, 50.0)]
    rows += [row("datm", 2.0, 85.0, "SL"), row("datm", 2.0, 75.0)]
    picture = draw(rows, "title")
    (panel,) = picture.axes
    styles = {tuple(line.get_ydata()): line.get_linestyle() for line in panel.get_lines()}
    assert (styles[80.0, 85.0], styles[70.0, 75.0]) == (":", "-")
    assert {"datm soft 85.0", "datm 75.0"} <= {text.get_text() for text in panel.texts}
    assert any("Dotted: students learn from soft labels" in text.get_text() for text in picture.texts)
