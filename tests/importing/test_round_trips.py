"""What dsdistill exports and imports again is equal to what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.imports import LABELS, digits, imported, refused, unit

LOGITS = torch.rand(20, 10, generator=torch.Generator().manual_seed(2)).softmax(
    1
)  # logits that look otherwise


def distilled_digits(path: Path, zca: bool = False, **fields: Any) -> DistilledSet:
    task = digits(zca)
    about = {"dataset": "digits", "protocol": "dsa", "method": "dsa", "network": "convnet3", "seed": 5}
    values: dict[str, Any] = {
        "images": unit() * 1.4 - 0.2,
        "labels": LABELS,
        "classes": task.classes,
        "preprocess": task.preprocess,
        "attributes": about,
    }
    distilled = DistilledSet(**(values | fields))
    set_file.write(path, distilled)
    return distilled


def check_equal(ours: DistilledSet, again: DistilledSet, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(again.images, ours.images, atol=tolerance, rtol=0)
    assert torch.equal(again.labels, ours.labels)
    assert again.classes == ours.classes
    assert again.preprocess.kind == ours.preprocess.kind
    for name, value in ours.preprocess.state().items():
        torch.testing.assert_close(again.preprocess.state()[name], value)
    assert (again.soft_labels is None) == (ours.soft_labels is None)
    if ours.soft_labels is not None:
        assert torch.equal(again.soft_labels, ours.soft_labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("space", ["network", "unit"])
@pytest.mark.parametrize("zca", [False, True])
def test_pt(tmp_path: Path, space: str, zca: bool) -> None:
    ours = distilled_digits(tmp_path / "set.h5", zca, soft_labels=LOGITS)
    dsdistill.export_set(tmp_path / "set.h5", tmp_path / "set.pt", space=space)
    again, summary = imported(tmp_path / "set.pt")
    check_equal(ours, again, 0.0 if space == "unit" else 1e-4 if zca else 1e-6)
    assert summary.space == ("unit" if space == "unit" else "zca" if zca else "standardised")


def test_png(tmp_path: Path) -> None:
    ours = distilled_digits(tmp_path / "set.h5", images=(unit() * 255).round() / 255)
    dsdistill.export_set(tmp_path / "set.h5", tmp_path / "png")
    check_equal(ours, imported(tmp_path / "png")[0])


def test_png_of_a_multi_formation(tmp_path: Path) -> None:
    formation = MultiFormation(factor=2)
    ours = distilled_digits(
        tmp_path / "set.h5", images=(unit() * 255).round() / 255, multi_formation=formation
    )
    dsdistill.export_set(tmp_path / "set.h5", tmp_path / "png")
    again, _ = imported(tmp_path / "png", factor=2)
    check_equal(ours, again)
    assert again.multi_formation == formation


@pytest.mark.parametrize("decoded", [False, True])
def test_h5(tmp_path: Path, decoded: bool) -> None:
    formation = MultiFormation(factor=2)
    logits = torch.rand(80, 10) if decoded else LOGITS
    pixels = (unit() * 255).round() / 255
    ours = distilled_digits(tmp_path / "set.h5", images=pixels, soft_labels=logits, multi_formation=formation)
    dsdistill.export_set(tmp_path / "set.h5", tmp_path / "small.h5", dtype="uint8")
    again, summary = imported(tmp_path / "small.h5")
    check_equal(ours, again, 1e-7)
    assert again.multi_formation == formation
    kept = {key: again.attributes[key] for key in ("method", "protocol", "network", "seed")}
    assert kept == {"method": "dsa", "protocol": "dsa", "network": "convnet3", "seed": 5}
    assert again.attributes["imported_from"] == "small.h5 (h5)"
    assert summary.format == "h5"
    refused(tmp_path / "small.h5", "--factor is for .*, not for h5", factor=2)


def test_h5_of_a_protocol_of_ones_own(tmp_path: Path) -> None:
    distilled_digits(tmp_path / "set.h5", attributes={"protocol": "mine.toml", "dataset": "digits"})
    assert imported(tmp_path / "set.h5")[0].attributes["protocol"] == "mine.toml"


@pytest.mark.parametrize("soft", [False, True])
def test_ddranking(tmp_path: Path, soft: bool) -> None:
    ours = distilled_digits(tmp_path / "set.h5", soft_labels=LOGITS if soft else None)
    dsdistill.export_set(tmp_path / "set.h5", tmp_path / "dd", to="ddranking")
    again, summary = imported(tmp_path / "dd")
    check_equal(ours, again, 1e-6)
    assert summary.format == "ddranking"
    assert again.attributes["learned_lr"] == pytest.approx(0.01)  # that of its protocol


def test_ddranking_of_pixels_far_from_black_and_white(tmp_path: Path) -> None:
    ours = distilled_digits(tmp_path / "set.h5", images=unit() * 60 - 30)
    dsdistill.export_set(tmp_path / "set.h5", tmp_path / "dd", to="ddranking")
    again, summary = imported(tmp_path / "dd")
    check_equal(ours, again, 1e-4)
    assert any("taken as standardised lie mostly" in sentence for sentence in summary.notices)


def test_parquet_and_tar_are_for_other_programs(tmp_path: Path) -> None:
    distilled_digits(tmp_path / "set.h5")
    dsdistill.export_set(tmp_path / "set.h5", tmp_path / "set.tar")
    with pytest.raises(dsdistill.UserError, match="of no known format"):
        dsdistill.import_set(tmp_path / "set.tar", tmp_path / "again.h5", dataset="digits")
