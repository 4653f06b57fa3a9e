"""A distilled set as a .pt file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dsdistill.data.preprocess import from_state
from dsdistill.errors import UserError
from dsdistill.export.png import export_png
from dsdistill.export.pt import export_pt
from dsdistill.synthetic.multi_formation import MultiFormation, decode
from tests.helpers.exports import written


def test_pt_is_plain_tensors(tmp_path: Path) -> None:
    distilled = written(tmp_path / "set.h5", soft_labels=torch.arange(18.0).reshape(6, 3))
    export_pt(tmp_path / "set.h5", tmp_path / "set.pt")
    content = torch.load(tmp_path / "set.pt", weights_only=True)
    torch.testing.assert_close(content["images"], (distilled.images - 0.5) / 0.25)
    assert torch.equal(content["labels"], distilled.labels)
    assert torch.equal(content["soft_labels"], torch.arange(18.0).reshape(6, 3))
    assert content["classes"] == ["plane", "car", "bird"]
    assert (content["space"], content["preprocess"]) == ("network", "standardise")
    torch.testing.assert_close(content["images"] * content["std"][0] + content["mean"][0], distilled.images)

    export_pt(tmp_path / "set.h5", tmp_path / "set.pt", space="unit")
    assert torch.equal(torch.load(tmp_path / "set.pt", weights_only=True)["images"], distilled.images)
    assert sorted(os.listdir(tmp_path)) == ["set.h5", "set.pt"]


def test_pt_of_a_whitened_set(tmp_path: Path) -> None:
    state = {"mean": torch.zeros(105), "matrix": torch.eye(105) * 2, "eps": torch.tensor(0.1)}
    distilled = written(tmp_path / "set.h5", preprocess=from_state("zca", state))
    export_pt(tmp_path / "set.h5", tmp_path / "set.pt")
    content = torch.load(tmp_path / "set.pt", weights_only=True)
    assert content["preprocess"] == "zca"
    assert "soft_labels" not in content
    whitened = (distilled.images.flatten(1) - content["mean"]) @ content["matrix"]
    torch.testing.assert_close(content["images"].flatten(1), whitened)


def test_a_multi_formation_is_decoded_in_pt_and_stored_in_png(tmp_path: Path) -> None:
    soft, multi_formation = torch.arange(18.0).reshape(6, 3), MultiFormation(factor=2)
    distilled = written(tmp_path / "set.h5", soft_labels=soft, multi_formation=multi_formation)
    export_pt(tmp_path / "set.h5", tmp_path / "set.pt", space="unit")
    content = torch.load(tmp_path / "set.pt", weights_only=True)
    assert content["labels"].tolist() == [0] * 8 + [1] * 12 + [2] * 4
    assert torch.equal(content["images"][8:20], decode(distilled.images[2:5], multi_formation))
    assert torch.equal(content["soft_labels"][8:11], soft[2:5])

    assert "export a .pt" in export_png(tmp_path / "set.h5", tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 6
    written(tmp_path / "set.h5")
    assert "export a .pt" not in export_png(tmp_path / "set.h5", tmp_path / "plain")


def test_pt_refusals(tmp_path: Path) -> None:
    written(tmp_path / "set.h5")
    with pytest.raises(UserError, match="mkdir -p"):
        export_pt(tmp_path / "set.h5", tmp_path / "no" / "set.pt")
    for taken in ("", "set.h5"):  # a folder, and the set itself
        with pytest.raises(UserError, match=r"exists and is no \.pt file"):
            export_pt(tmp_path / "set.h5", tmp_path / taken)
    with pytest.raises(UserError, match="no file at"):
        export_pt(tmp_path / "absent.h5", tmp_path / "set.pt")
