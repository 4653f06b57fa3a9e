"""The cost of iterations by classes and by images per class, and the lines through it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cost_scaling


def test_a_line_is_fitted_to_shares() -> None:
    fit = cost_scaling.fitted([10, 50, 200], [2.0 + 3.0 * size for size in (10, 50, 200)])
    assert (fit.fixed, fit.each) == pytest.approx((2.0, 3.0))
    assert fit.largest_deviation < 1e-9
    sizes, values = (1, 2, 3), (100.0, 200.0, 330.0)
    bent = cost_scaling.fitted(sizes, values)
    shares = [(bent.fixed + bent.each * size) / value for size, value in zip(sizes, values, strict=True)]
    assert bent.largest_deviation == pytest.approx(max(abs(share - 1) for share in shares))
    assert 0.01 < bent.largest_deviation < 0.05


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure in this process, on few images."""
    monkeypatch.setattr(cost_scaling, "in_process", lambda function, *arguments: function(*arguments))
    for name in ("quiet_allocator", "keep_resident"):
        monkeypatch.setattr(cost_scaling, name, lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    small: dict[str, Any] = {"PER_CLASS": 4, "FIXED": 2, "CLASSES": (2, 3, 4), "IPCS": (1, 2, 3)}
    for name, value in small.items():
        monkeypatch.setattr(cost_scaling, name, value)


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("method", cost_scaling.METHODS)
def test_an_iteration_of_any_number_of_classes_and_images_is_measured(method: str) -> None:
    row = cost_scaling.measure(method, classes=3, ipc=2, rounds=1)
    assert (row["method"], row["classes"], row["ipc"]) == (method, 3, 2)
    assert row["seconds"] > 0


@pytest.mark.usefixtures("_here")
def test_costs_are_written_with_their_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def measured(method: str, classes: int, ipc: int, rounds: int) -> dict[str, Any]:
        seen.append((classes, ipc))
        costs = {"seconds": 0.5 + 0.1 * classes * ipc, "peak_mb": 10.0 + ipc}
        return {"method": method, "classes": classes, "ipc": ipc, **costs}

    monkeypatch.setattr(cost_scaling, "measure", measured)
    monkeypatch.setattr(cost_scaling, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["cost_scaling.py", "--methods", "dm"])
    cost_scaling.main()
    assert seen == [(2, 2), (3, 2), (4, 2), (2, 1), (2, 3)]  # the size that both lines share is measured once
    assert "dm     seconds         0.5 s +        0.2 s x classes, within 0 %" in capsys.readouterr().out
    record = json.loads((tmp_path / "cost-scaling.json").read_text())
    assert record["command"] == "python benchmarks/cost_scaling.py --methods dm"
    assert (record["seed"], len(record["rows"]), len(record["lines"])) == (0, 5, 4)
    memory = next(line for line in record["lines"] if (line["of"], line["by"]) == ("peak_mb", "ipc"))
    assert (memory["fixed"], memory["each"]) == pytest.approx((10.0, 1.0))
