"""Our own recipe on other data: what these are, and that the script runs."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import dsdistill
from benchmarks import other_data
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.real import RealDataset
from dsdistill.seeding import generator

CLASSES = tuple("abcdefghij")


def test_letters_are_those_of_the_seed() -> None:
    first, again, other = (
        torch.from_numpy(np.array(other_data.letter(symbol, generator(0, "test")))).float()
        for symbol in "AAB"
    )
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 5
    assert first.max() > 128  # ink


def test_letters_are_a_folder_of_ten_classes(tmp_path: Path) -> None:
    name = other_data.write_letters(tmp_path / "letters", 5)
    task, real = catalog.load(DataConfig(name=name), "train")
    assert (task.num_classes, task.size, len(real)) == (10, 28, 50)
    assert len(catalog.load(DataConfig(name=name), "test")[1]) == 10
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    other_data.write_letters(tmp_path / "letters", 5)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before


def test_classes_of_the_long_tail_shrink_to_a_hundredth(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(config: DataConfig, split: str) -> tuple[None, RealDataset]:
        labels = torch.arange(10).repeat_interleave(600)
        return None, RealDataset("toy", split, torch.zeros(6000, 1, 4, 4, dtype=torch.uint8), labels, CLASSES)

    monkeypatch.setattr(other_data.catalog, "load", load)
    data = other_data.long_tailed()
    counts = torch.bincount(data["train"][1]).tolist()
    assert (counts[0], counts[-1]) == (600, 6)
    assert all(after < before for before, after in itertools.pairwise(counts))
    assert len(data["test"][1]) == 6000


@pytest.mark.slow
def test_the_script_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["other_data.py", str(tmp_path), "--quick"])
    other_data.main()
    found = {path.name: dsdistill.load(path) for path in tmp_path.glob("*.h5")}
    assert found.keys() == {
        f"{data}-{method}.h5" for data in ("digits", "letters") for method in other_data.METHODS
    }
