"""Data without labels: which files are such, and how they are read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dsdistill.config.unlabelled import UNLABELLED
from dsdistill.data import catalog
from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from tests.helpers.callbacks import Told
from tests.helpers.data import class_folders, fails, pixels, save


def pictures(folder: Path, count: int = 10) -> str:
    for number in range(count):
        save(folder / f"{number}.png", pixels(8, 8, 3, seed=number))
    return f"folder:{folder}"


def test_a_folder_of_pictures_has_no_labels(tmp_path: Path) -> None:
    name = pictures(tmp_path / "all")
    (tmp_path / "all" / "notes.txt").write_text("taken in May")
    told: list[str] = []
    task, train = load(DataConfig(name=name), "train", Told(notify=told.append))
    _, test = load(DataConfig(name=name), "test")
    assert (task.classes, train.classes, task.num_classes) == (UNLABELLED, UNLABELLED, 1)
    assert (len(train), len(test)) == (8, 2)
    assert not train.labels.any()
    assert len(torch.cat([train.images, test.images]).unique(dim=0)) == 10
    assert told == [f"{name}: 1 file skipped: 1 .txt"]
    assert task.describe(8).endswith(": 8 images of 3x8x8, without labels")


def test_pictures_beside_class_folders_are_still_left_out(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pets")
    pictures(folder, 3)
    task, train = load(DataConfig(name=f"folder:{folder}"), "train")
    assert task.classes == ("cat", "dog")
    assert len(train) + len(load(DataConfig(name=f"folder:{folder}"), "test")[1]) == 12


@pytest.mark.parametrize("keys", [("images",), ("x",), ("x_train",), ("x_train", "x_test")])
def test_an_npz_of_images_alone_has_no_labels(tmp_path: Path, keys: tuple[str, ...]) -> None:
    arrays = {key: pixels(10, 8, 8, seed=number) for number, key in enumerate(keys)}
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    config = DataConfig(name=f"npz:{tmp_path / 'a.npz'}")
    task, train = load(config, "train")
    _, test = load(config, "test")
    assert task.classes == UNLABELLED
    assert (len(train), len(test)) == ((8, 2) if len(keys) == 1 else (10, 10))
    assert not torch.isin(test.images.flatten(1).sum(1), train.images.flatten(1).sum(1)).any()


def test_an_npz_with_some_of_its_labels_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=pixels(6, 8, 8), y_test=np.zeros(6, np.int64))
    fails(
        "holds the keys x_train, y_test; it needs .*, or one array of images without labels",
        f"npz:{tmp_path}/a.npz",
    )
    np.savez(tmp_path / "b.npz", x_train=pixels(6, 8, 8), x_test=pixels(6, 9, 9))
    fails("x_train and x_test hold images of different shapes", f"npz:{tmp_path}/b.npz")


def test_labels_may_be_left_out() -> None:
    plain, bare = (DataConfig(name="digits", unlabelled=unlabelled) for unlabelled in (False, True))
    task, train = load(bare, "train")
    _, labelled = load(plain, "train")
    assert task.classes == UNLABELLED
    assert train.counts.tolist() == [len(labelled)]
    assert torch.equal(train.images, labelled.images)
    assert train.fingerprint != labelled.fingerprint
    assert torch.equal(catalog.read(bare, "test").images, catalog.read(plain, "test").images)


def test_images_are_known_again_with_labels_and_without() -> None:
    plain, bare = (load(DataConfig(name="digits", unlabelled=each), "train")[1] for each in (False, True))
    others = catalog.read(DataConfig(name="digits"), "test")
    foreign = [others.fingerprint, others.without_labels().fingerprint, ""]
    for real in (plain, bare, bare.fingerprinted(lambda *_: None)):
        assert real.has_images_of(plain.fingerprint)
        assert real.has_images_of(bare.fingerprint)
        assert not any(map(real.has_images_of, foreign))


def test_images_that_never_had_labels_are_known_by_themselves(tmp_path: Path) -> None:
    _, real = load(DataConfig(name=pictures(tmp_path / "all")), "train")
    named = dataclasses.replace(real, classes=("cat",))
    assert real.has_images_of(real.fingerprint)
    assert not real.has_images_of(named.fingerprint)
    assert named.has_images_of(real.fingerprint)
