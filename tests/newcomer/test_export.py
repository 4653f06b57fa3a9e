"""A distilled set leaves for the tools that others use, and nothing of it is lost unsaid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from tests.newcomer.notices import Notices


def test_huggingface_loads_an_export(made: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dsdistill.export_set(made, tmp_path / "hf", to="hf")
    data = datasets.load_dataset(str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache"))
    pixels = data.with_format("torch")[:]["pixels"]
    assert torch.equal(pixels, dsdistill.load(made, space="unit").images)
    assert "UCI" in (tmp_path / "hf" / "README.md").read_text()


def exported(file: Path) -> tuple[float, list[str]]:
    """Return which percentage of a set's pixels its pictures clip, and which options would avoid that."""
    said = Notices()
    dsdistill.export_set(file, file.with_suffix(""), callbacks=[said])
    (sentence,) = said.sentences
    return float(sentence.removeprefix("8-bit PNG: ").partition("%")[0]), re.findall(r"--set (\S+)", sentence)


def test_pictures_that_are_clipped_name_the_options_that_avoid_it(made: Path, tmp_path: Path) -> None:
    share, options = exported(made)
    assert share > 10
    assert "optimiser.clamp_every=1" in options
    again: dict[str, Any] = {"dataset": "digits", "ipc": 1, "network": "convnet2-w8", "iterations": 3}
    dsdistill.distill(tmp_path / "inside.h5", **again, overrides=options)
    better, nothing = exported(tmp_path / "inside.h5")
    assert better < share
    assert not nothing


def test_a_set_comes_back_from_its_export(made: Path, tmp_path: Path) -> None:
    dsdistill.export_set(made, tmp_path / "set.pt")
    dsdistill.import_set(tmp_path / "set.pt", tmp_path / "again.h5", dataset="digits")
    ours, again = dsdistill.load(made), dsdistill.load(tmp_path / "again.h5")
    assert torch.equal(again.labels, ours.labels)
    torch.testing.assert_close(again.images, ours.images, atol=1e-5, rtol=0)
