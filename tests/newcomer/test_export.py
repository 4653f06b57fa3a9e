"""A distilled set leaves for the tools that others use, and nothing of it is lost unsaid."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dsdistill


class Notices(dsdistill.Callback):
    """Keeps the sentences that a call says."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def on_notice(self, sentence: str) -> None:
        self.sentences.append(sentence)


def test_huggingface_loads_an_export(made: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dsdistill.export_set(made, tmp_path / "hf", to="hf")
    data = datasets.load_dataset(str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache"))
    pixels = data.with_format("torch")[:]["pixels"]
    assert torch.equal(pixels, dsdistill.load(made, space="unit").images)
    assert "UCI" in (tmp_path / "hf" / "README.md").read_text()


def test_pictures_that_are_clipped_name_the_options_that_avoid_it(made: Path, tmp_path: Path) -> None:
    sentences = Notices()
    dsdistill.export_set(made, tmp_path / "pictures", callbacks=[sentences])
    clipped = "0.00%" not in sentences.sentences[0]
    assert ("--set optimiser.clamp_every=1" in sentences.sentences[0]) == clipped


def test_a_set_comes_back_from_its_export(made: Path, tmp_path: Path) -> None:
    dsdistill.export_set(made, tmp_path / "set.pt")
    dsdistill.import_set(tmp_path / "set.pt", tmp_path / "again.h5", dataset="digits")
    ours, again = dsdistill.load(made), dsdistill.load(tmp_path / "again.h5")
    assert torch.equal(again.labels, ours.labels)
    torch.testing.assert_close(again.images, ours.images, atol=1e-5, rtol=0)
