"""The point of it all: a short distillation beats as many random real images under the same protocol."""

from __future__ import annotations

from pathlib import Path

import dsdistill


def test_dm_on_digits_beats_random_selection(tmp_path: Path) -> None:
    file = tmp_path / "digits.h5"
    summary = dsdistill.distill(
        file, dataset="digits", method="dm", ipc=1, network="convnet2-w32", iterations=60, device="cpu"
    )
    assert summary.last_loss < summary.first_loss
    report = dsdistill.evaluate(file, protocol="dm", epochs=100, repeats=4, device="cpu")
    distilled, random = report.rows
    assert (distilled.set, random.set) == ("distilled", "random")
    assert distilled.images == random.images == 10
    assert distilled.mean - distilled.std > random.mean + random.std
    print(distilled.values, random.values)
