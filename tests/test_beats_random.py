"""The point of it all: a short distillation beats as many random real images under the same protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

import dsdistill

ITERATIONS = {"dm": 60, "dc": 60, "dsa": 40, "idc-i": 40, "idc": 60}


@pytest.mark.parametrize("method", ITERATIONS)
def test_a_short_run_on_digits_beats_random_selection(tmp_path: Path, method: str) -> None:
    file = tmp_path / "digits.h5"
    summary = dsdistill.distill(
        file,
        dataset="digits",
        method=method,
        ipc=1,
        network="convnet2-w32",
        iterations=ITERATIONS[method],
        device="cpu",
    )
    assert summary.iterations == ITERATIONS[method]
    report = dsdistill.evaluate(file, epochs=100, repeats=4, device="cpu")
    distilled, random = report.rows
    assert (distilled.set, random.set) == ("distilled", "random")
    assert distilled.images == random.images == 10
    print(distilled.protocol, distilled.values, random.values)
    assert distilled.mean - distilled.std > random.mean + random.std
