"""Folders of pictures: how they are found and split."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from tests.helpers.data import class_folders, fails, pixels, save

pytestmark = pytest.mark.usefixtures("data_home")


def test_folder_with_train_and_test(tmp_path: Path) -> None:
    pets = tmp_path / "pets"
    class_folders(pets / "train", per_class=3)
    class_folders(pets / "test", per_class=2)
    (pets / "train" / ".thumbnails").mkdir()
    (pets / "train" / "cat" / "README.txt").write_text("not a picture")
    told: list[str] = []
    task, train = load(DataConfig(name=f"folder:{pets}"), "train", told.append)
    _, test = load(DataConfig(name=f"folder:{pets}"), "test", told.append)
    assert told == []  # nothing was converted
    assert (task.classes, task.shape, task.mirror) == (("cat", "dog"), (3, 8, 8), True)
    assert torch.equal(train.images[4], torch.from_numpy(pixels(8, 8, 3, seed=101)).permute(2, 0, 1))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])


def test_one_folder_is_split_by_class_and_always_alike(tmp_path: Path) -> None:
    config = DataConfig(name=f"folder:{class_folders(tmp_path / 'pets', per_class=10)}", test_fraction=0.3)
    train, test = (load(config, split)[1] for split in ("train", "test"))  # type: ignore[arg-type]
    assert (train.counts.tolist(), test.counts.tolist()) == ([7, 7], [3, 3])
    rows = {image.numpy().tobytes() for image in torch.cat([train.images, test.images])}
    assert len(rows) == 20  # disjoint, and nothing lost
    assert load(config, "train")[1].fingerprint == train.fingerprint


def test_channels_and_size_are_inferred_from_train(tmp_path: Path) -> None:
    for i, shape in enumerate([(40, 50), (33, 90), (70, 64), (45, 32)]):
        save(tmp_path / "train" / "ab"[i % 2] / f"{i}.png", pixels(*shape))
    class_folders(tmp_path / "test", classes=("a", "b"), size=16)
    task, train = load(DataConfig(name=f"folder:{tmp_path}"), "train")
    assert task.shape == (1, 32, 32)  # three of four shorter sides come down to 32, and all are grey
    assert train.images.shape == (4, 1, 32, 32)
    task, test = load(DataConfig(name=f"folder:{tmp_path}"), "test")
    assert task.shape == tuple(test.images.shape[1:]) == (1, 32, 32)


def test_folder_errors(tmp_path: Path) -> None:
    fails("no such folder", f"folder:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    fails("holds no class folders", f"folder:{tmp_path / 'empty'}")
    fails("one class only", f"folder:{class_folders(tmp_path / 'one', classes=('cat',))}")
    pets = class_folders(tmp_path / "pets")
    (pets / "ferret").mkdir()
    fails("ferret holds no pictures", f"folder:{pets}")
    save(pets / "ferret" / "0.png", pixels(8, 8))
    fails("class 'ferret' has 1 image", f"folder:{pets}")
    class_folders(tmp_path / "no train" / "test")
    fails("test/ but no train/", f"folder:{tmp_path / 'no train'}")
    class_folders(tmp_path / "odd" / "train")
    class_folders(tmp_path / "odd" / "test", classes=("cat", "wolf"))
    fails("different classes: 'dog'", f"folder:{tmp_path / 'odd'}")
