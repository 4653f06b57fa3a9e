"""A set that somebody else distilled, as their code left it, is judged like one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dsdistill
from tests.helpers.notices import Notices


def test_a_result_folder_is_imported_and_evaluated(tmp_path: Path) -> None:
    run = tmp_path / "logged_files"
    run.mkdir()
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.save((images - 0.3) / 0.37, run / "images_best.pt")
    torch.save(torch.arange(10).repeat_interleave(2), run / "labels_best.pt")

    sentences = Notices()
    summary = dsdistill.import_set(run, tmp_path / "theirs.h5", dataset="digits", callbacks=[sentences])
    assert summary.format == "mtt"
    assert summary.space == "standardised"
    assert any("standardised pixels" in sentence for sentence in sentences.sentences)

    loaded = dsdistill.load(summary.path, space="unit")
    assert (loaded.images - images).abs().max() < 0.05
    assert loaded.attributes["imported_from"] == "logged_files (mtt)"

    report = dsdistill.evaluate(summary.path, networks=["convnet2-w8"], epochs=2, repeats=1)
    assert [row.set for row in report.rows] == ["distilled", "random"]


def test_labels_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    torch.save({"images": torch.zeros(20, 1, 8, 8), "labels": torch.arange(20)}, tmp_path / "theirs.pt")
    with pytest.raises(dsdistill.UserError, match="digits has 10 classes: 0 to 9"):
        dsdistill.import_set(tmp_path / "theirs.pt", tmp_path / "set.h5", dataset="digits")


def test_a_space_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(20, 1, 8, 8), tmp_path / "theirs.pt")
    with pytest.raises(dsdistill.UserError, match="unknown space 'rgb'"):
        dsdistill.import_set(tmp_path / "theirs.pt", tmp_path / "set.h5", dataset="digits", space="rgb")
