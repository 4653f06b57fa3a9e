"""Folders of pictures: how they are found and split."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.errors import UserError
from tests.helpers.callbacks import Told
from tests.helpers.data import class_folders, fails, pixels, save

pytestmark = pytest.mark.usefixtures("data_home")


def test_folder_with_train_and_test(tmp_path: Path) -> None:
    pets = tmp_path / "pets"
    class_folders(pets / "train", per_class=3)
    class_folders(pets / "test", per_class=2)
    (pets / "train" / ".thumbnails").mkdir()
    (pets / "train" / "cat" / "README.txt").write_text("not a picture")
    told: list[str] = []
    task, train = load(DataConfig(name=f"folder:{pets}"), "train", Told(notify=told.append))
    _, test = load(DataConfig(name=f"folder:{pets}"), "test", Told(notify=told.append))
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


def layout(root: Path, *folders: str, files: int = 2) -> list[str]:
    """Make these folders of pictures; return the class of each training picture, or what was said instead."""
    for k, folder in enumerate(folders):
        for i in range(files):
            save(root / folder / f"{i}.png", pixels(8, 8, 3, seed=10 * k + i))
    told: list[str] = []
    config = DataConfig(name=f"folder:{root}")
    try:
        _, train = load(config, "train", Told(notify=told.append))
        _, test = load(config, "test", Told(notify=told.append))
    except UserError as error:
        return [str(error)]
    assert train.classes == test.classes
    sizes = f"{len(train)} and {len(test)} of {', '.join(train.classes)}"
    return [sizes, *(sentence.removeprefix(f"{config.name}: ") for sentence in told)]


@pytest.mark.parametrize("test", ["Testing", "TEST", "val", "valid", "Validation"])
@pytest.mark.parametrize("train", ["Training", "train"])
def test_usual_names_of_splits_are_recognised(tmp_path: Path, train: str, test: str) -> None:
    folders = [f"{split}/{name}" for split in (train, test) for name in ("cat", "dog")]
    assert layout(tmp_path / "pets", *folders) == [
        "4 and 4 of cat, dog",
        f"{train}/ is the train split and {test}/ the test split",
    ]


def test_what_a_layout_leaves_out_is_said(tmp_path: Path) -> None:
    train = ("train/cat", "train/dog")
    assert layout(tmp_path / "a", *train, "val/cat", "val/dog", "test/cat", "test/dog", "masks") == [
        "4 and 4 of cat, dog",
        "not used: masks/, val/",
    ]
    # The test pictures of a competition have no labels.
    assert layout(tmp_path / "b", *train, "test") == [
        "2 and 2 of cat, dog",
        "no test split beside train/: data.test_fraction of it is held out",
        "not used: test/",
    ]
    assert layout(tmp_path / "c", *train, "test", "valid/cat", "valid/dog") == [
        "4 and 4 of cat, dog",
        "train/ is the train split and valid/ the test split",
        "not used: test/",
    ]
    assert layout(tmp_path / "d", "Training/cat", "Training/dog") == [
        "2 and 2 of cat, dog",
        "no test split beside Training/: data.test_fraction of it is held out",
    ]


def test_splits_are_never_taken_for_classes_without_a_word(tmp_path: Path) -> None:
    def refused(name: str, match: str, *folders: str) -> None:
        (sentence,) = layout(tmp_path / name, *folders)
        assert re.search(match, sentence), sentence

    refused("a", "Training holds no class folders", "Training", "Testing")
    refused("b", "train holds no class folders", "train", "valid")
    refused("c", "named like splits, not classes: seg_test/, seg_train/", "seg_train/cat", "seg_test/cat")
    refused("d", "named like splits, not classes: test1/, training_set/; call", "test1", "training_set")
    refused("e", "has valid/ but no train/", "valid/cat", "valid/dog", "cat", "dog")
    refused("f", "has test/ but no train/", "test", "cat", "dog")
    refused("g", "holds both Train/ and train/; keep one", "Train/cat", "train/cat", "test/cat")
    refused("h", "holds both val/ and valid/; keep one", "train/cat", "val/cat", "valid/cat")
    refused("i", "one class only .'archive'.*name that folder", "archive/cat", "archive/dog")
    class_folders(tmp_path / "j" / "train")
    (tmp_path / "j" / "test").symlink_to("train")
    refused("j", "train and test of .* are one folder")


def test_classes_with_the_name_of_a_split_are_read_with_a_word(tmp_path: Path) -> None:
    assert layout(tmp_path / "vehicles", "car", "plane", "train") == [
        "3 and 3 of car, plane, train",
        "taken as classes, as they hold no folders: train/",
    ]
    assert layout(tmp_path / "checks", "invalid", "valid") == [
        "2 and 2 of invalid, valid",
        "taken as classes, as they hold no folders: valid/",
    ]
    assert layout(tmp_path / "words", "contest", "value", "trainer") == ["3 and 3 of contest, trainer, value"]


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
