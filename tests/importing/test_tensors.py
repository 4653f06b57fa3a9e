"""Files of tensors: labels of images alone lie beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.helpers.imports import LABELS, imported, saved, unit


def test_labels_beside_images_are_taken_and_told(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", unit().numpy())
    saved(tmp_path / "labels.pt", LABELS)  # of another suffix, so only where there is no labels.npy
    turned = LABELS.flip(0)
    np.save(tmp_path / "labels.npy", turned.numpy())
    distilled, summary = imported(tmp_path / "images.npy")
    assert torch.equal(distilled.images, unit()[turned.argsort(stable=True)])
    assert "the labels are those of labels.npy beside it" in summary.notices
    (tmp_path / "labels.npy").unlink()
    assert "the labels are those of labels.pt beside it" in imported_again(tmp_path / "images.npy")


def test_labels_of_the_file_or_of_an_option_come_first(tmp_path: Path) -> None:
    saved(tmp_path / "labels.pt", LABELS.flip(0))
    distilled, summary = imported(saved(tmp_path / "theirs.pt", (unit(), LABELS)))
    assert torch.equal(distilled.images, unit())
    assert not any("beside it" in sentence for sentence in summary.notices)
    named = saved(tmp_path / "mine.pt", LABELS)
    distilled, _ = imported(saved(tmp_path / "images.pt", unit()), labels=named, format="tensors")
    assert torch.equal(distilled.images, unit())


def imported_again(source: Path) -> tuple[str, ...]:
    """Import a source anew, and return the notices."""
    (source.parent / f"{source.name}-imported.h5").unlink()
    return imported(source)[1].notices
