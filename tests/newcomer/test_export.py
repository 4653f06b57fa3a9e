"""A distilled set leaves for the tools that others use, and nothing of it is lost unsaid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from tests.helpers.notices import Notices


def test_huggingface_loads_an_export(made: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dsdistill.export_set(made, tmp_path / "hf", to="hf")
    data = datasets.load_dataset(str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache"))
    pixels = data.with_format("torch")[:]["pixels"]
    assert torch.equal(pixels, dsdistill.load(made, space="unit").images)
    assert "UCI" in (tmp_path / "hf" / "README.md").read_text()


def test_pictures_that_are_clipped_name_the_options_that_avoid_it(tmp_path: Path) -> None:
    def said(name: str, overrides: list[str]) -> str:
        notices, file = Notices(), tmp_path / f"{name}.h5"
        run: dict[str, Any] = {"dataset": "digits", "ipc": 1, "network": "convnet2-w8", "iterations": 20}
        dsdistill.distill(file, **run, overrides=overrides)
        dsdistill.export_set(file, tmp_path / name, callbacks=[notices])
        return notices.sentences[0]

    def share(sentence: str) -> float:
        return float(sentence.removeprefix("8-bit PNG: ").partition("%")[0])

    free = said("free", ["optimiser.lr=1"])
    options = re.findall(r"--set (\S+)", free)
    assert "optimiser.clamp_every=1" in options
    clamped = said("clamped", ["optimiser.lr=1", *options])
    assert 0 < share(clamped) < share(free) / 2
    assert "--set" not in clamped


def test_a_set_comes_back_from_its_export(made: Path, tmp_path: Path) -> None:
    dsdistill.export_set(made, tmp_path / "set.pt")
    dsdistill.import_set(tmp_path / "set.pt", tmp_path / "again.h5", dataset="digits")
    ours, again = dsdistill.load(made), dsdistill.load(tmp_path / "again.h5")
    assert torch.equal(again.labels, ours.labels)
    torch.testing.assert_close(again.images, ours.images, atol=1e-5, rtol=0)
