"""The ImageNets, read from tiny copies of their folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.data.constants import _WNIDS, SUBSETS, subset_wnids
from tests.helpers.callbacks import Told
from tests.helpers.data import fails, pixels, save

pytestmark = pytest.mark.usefixtures("data_home")


def test_tiny_imagenet(tmp_path: Path) -> None:
    home = tmp_path / "tiny-imagenet-200"
    wnids = ["n03", "n01", "n02"]
    for k, wnid in enumerate(wnids):
        save(
            home / "train" / wnid / "images" / f"{wnid}_0.JPEG", np.full((64, 64, 3), 80 * k, dtype=np.uint8)
        )
    save(
        home / "train" / "n01" / "images" / "n01_1.JPEG", np.full((64, 64), 9, dtype=np.uint8)
    )  # some are grey
    for i in range(2):
        save(home / "val" / "images" / f"val_{i}.JPEG", np.full((64, 64, 3), 100 + i, dtype=np.uint8))
    (home / "val" / "val_annotations.txt").write_text(
        "val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n"
    )
    (home / "wnids.txt").write_text("\n".join(wnids))
    (home / "words.txt").write_text(
        "n00\tthing\nn01\tcrane, bird\nn02\tgoldfish, Carassius\nn03\tcrane, machine\n"
    )
    told: list[str] = []
    task, train = load(DataConfig(name="tiny-imagenet", root=tmp_path), "train", Told(notify=told.append))
    assert task.classes == ("crane, bird", "goldfish", "crane, machine")
    assert task.shape == (3, 64, 64)
    assert train.labels.tolist() == [0, 0, 1, 2]
    assert train.images[:, 1, 0, 0].tolist() == [80, 9, 160, 0]
    assert told == ["tiny-imagenet (train): 4 images, 1 greyscale repeated to 3 channels"]
    _, test = load(DataConfig(name="tiny-imagenet", root=home), "test")
    assert test.labels.tolist() == [1, 0]
    assert test.images[:, 0, 5, 5].tolist() == [100, 101]
    assert task.preprocess.state()["std"].tolist() == pytest.approx([0.229, 0.224, 0.225])
    (home / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn99\n")
    fails("does not fit wnids.txt", "tiny-imagenet", "test", root=tmp_path)
    fails("wnids.txt was not found", "tiny-imagenet", root=tmp_path / "elsewhere")


@pytest.mark.slow
def test_subset_ids_are_ilsvrcs() -> None:
    timm_data = pytest.importorskip("timm.data")
    wnids = timm_data.ImageNetInfo("imagenet-1k").label_names()
    assert {index: wnids[index] for index in _WNIDS} == _WNIDS
    assert all(len(set(indices)) == 10 for indices in SUBSETS.values())


@pytest.mark.slow
def test_imagenet_subset_takes_its_labels_from_the_published_order(tmp_path: Path) -> None:
    for level, wnid in enumerate(subset_wnids("imagewoof")):
        for part in ("train", "val"):
            save(tmp_path / part / wnid / "a.JPEG", np.full((50, 70, 3), 20 * level, dtype=np.uint8))
    save(
        tmp_path / "train" / "n00000000" / "another.JPEG", pixels(9, 9, 3)
    )  # not of the subset: never opened
    told: list[str] = []
    task, train = load(DataConfig(name="imagewoof", root=tmp_path), "train", Told(notify=told.append))
    assert train.images.shape == (10, 3, 128, 128)
    assert train.images[:, 0, 64, 64].tolist() == [20 * level for level in range(10)]
    assert task.classes[:2] == ("Australian terrier", "Border terrier")
    assert "10 not 128x128 resized" in told[0]
    told.clear()
    _, test = load(DataConfig(name="imagewoof", root=tmp_path, size=32), "test", Told(notify=told.append))
    assert test.images.shape[2] == 32
    assert "not hold ILSVRC2012's validation images alone" in told[0]  # a.JPEG is no name of theirs
    for file in (tmp_path / "val").glob("*/a.JPEG"):
        file.rename(file.with_name(f"ILSVRC2012_val_{file.parent.name}.JPEG"))
    told.clear()
    load(DataConfig(name="imagewoof", root=tmp_path, size=32), "test", Told(notify=told.append))
    assert not any("ILSVRC2012" in sentence for sentence in told)
    fails("train/n01440764 was not found", "imagenette", root=tmp_path)
    fails("11 class folders, not ImageNet's 1000", "imagenet", root=tmp_path)
    fails("folder val/ was not found", "imagenet", "test", root=tmp_path / "x")
