"""Sets with compensators leave for formats that know none: their training images are written."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dsdistill.export.ddranking import export_ddranking
from dsdistill.export.hdf5 import export_h5
from dsdistill.export.png import export_png
from dsdistill.export.pt import export_pt
from dsdistill.export.webdataset import export_webdataset
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet
from tests.helpers.exports import as_bytes
from tests.helpers.labels import noise
from tests.helpers.storage import make, with_compensators


@pytest.fixture
def ours(tmp_path: Path) -> DistilledSet:
    distilled = with_compensators()
    set_file.write(tmp_path / "set.h5", distilled)
    return distilled


def test_a_pt_holds_decoded_images(ours: DistilledSet, tmp_path: Path) -> None:
    assert export_pt(tmp_path / "set.h5", tmp_path / "set.pt", "unit") == []
    found = torch.load(tmp_path / "set.pt", weights_only=True)
    images, origins = ours.decode()
    assert torch.equal(found["images"], images)
    assert torch.equal(found["labels"], ours.labels[origins])


def test_pictures_are_of_decoded_images(ours: DistilledSet, tmp_path: Path) -> None:
    from PIL import Image

    said = export_png(tmp_path / "set.h5", tmp_path / "png")
    assert said.endswith("; the 20 stored images are written as 36 decoded ones")
    files = sorted((tmp_path / "png").glob("*/*.png"))
    assert len(files) == 36
    expected = as_bytes(ours.decode()[0])
    for file, image in zip(files, expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(file)).transpose(2, 0, 1), image)


def test_a_webdataset_says_what_it_decoded(ours: DistilledSet, tmp_path: Path) -> None:
    said = export_webdataset(tmp_path / "set.h5", tmp_path / "set.tar")
    assert "the 20 stored images are written as the 36 that they decode into" in said


@pytest.mark.parametrize(("dtype", "words"), [("uint8", "; compensators, which"), ("float16", "")])
def test_a_smaller_set_keeps_them(
    ours: DistilledSet, tmp_path: Path, dtype: set_file.Dtype, words: str
) -> None:
    said = export_h5(tmp_path / "set.h5", tmp_path / "small.h5", dtype)
    assert ("; compensators, which may be negative, are float16" in said) == bool(words)
    assert ours.compensators is not None
    found = set_file.read(tmp_path / "small.h5").compensators
    assert torch.equal(found, ours.compensators.half().float())  # type: ignore[arg-type]
    with h5py.File(tmp_path / "small.h5") as file:
        assert file["compensators"].dtype == "float16"


def test_ddranking_takes_the_ipc_that_the_set_needs(tmp_path: Path) -> None:
    added = 0.1 * noise(4, 3, 32, 32)
    about = {"dataset": "cifar10", "protocol": "dsa", "network": "convnet3,mobilenetv2"}
    set_file.write(
        tmp_path / "set.h5", make(count=2, kinds=10, size=32, compensators=added, attributes=about)
    )
    export_ddranking(tmp_path / "set.h5", tmp_path / "out", None)
    assert len(torch.load(tmp_path / "out" / "images.pt", weights_only=True)) == 60
    words = (tmp_path / "out" / "ddranking.yaml").read_text()
    assert "ipc: 3\n" in words  # 24 images of 10 classes
    assert 'model_name: "ConvNet-3"' in words
