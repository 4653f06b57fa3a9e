"""What exports hold of a set with targets, and what they say they leave out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsdistill.export.png import export_png
from dsdistill.export.pt import export_pt
from dsdistill.export.training_images import TrainingImages
from dsdistill.storage import set_file
from tests.storage.test_targets import with_targets

LEFT_OUT = "the targets of 5 numbers are left out; the .h5 holds them"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    set_file.write(tmp_path / "set.h5", with_targets())
    return tmp_path / "set.h5"


def test_a_pt_holds_them(path: Path, tmp_path: Path) -> None:
    assert export_pt(path, tmp_path / "set.pt") == []
    content = torch.load(tmp_path / "set.pt", weights_only=True)
    assert torch.equal(content["targets"], with_targets().targets)  # type: ignore[arg-type]


def test_pictures_do_not_and_say_so(path: Path, tmp_path: Path) -> None:
    assert LEFT_OUT in export_png(path, tmp_path / "pictures")
    assert TrainingImages(path).dropped() == [LEFT_OUT]
