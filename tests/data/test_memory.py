"""Data in memory: arrays, Datasets and mappings of splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.data.memory import opened
from dsdistill.data.sources import ImageData
from dsdistill.errors import UserError
from dsdistill.runtime.callbacks import Callback
from tests.helpers.data import fails, in_memory, pixels, refuses

pytestmark = pytest.mark.usefixtures("data_home")

X, Y = pixels(20, 8, 8, 3), np.arange(20) % 2


class Named:
    """A list of pairs whose classes have names; it counts how often an item is read."""

    def __init__(self, images: Any, labels: Any, classes: Any = ("cat", "dog")) -> None:
        self.pairs, self.classes, self.reads = list(zip(images, labels, strict=True)), classes, 0

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return self.pairs[index]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (X, ""),
        (X.transpose(0, 3, 1, 2), ""),
        (torch.from_numpy(X), ""),
        (torch.from_numpy(X).permute(0, 3, 1, 2) / 255, "memory:arrays: values in 0..1, 1 is white"),
        (X.astype(np.float64), "memory:arrays: values in 0..255, 255 is white"),
        (X.astype(np.int32), "memory:arrays: values in 0..255, 255 is white"),
    ],
)
def test_arrays_are_read_as_the_same_arrays_in_a_file(tmp_path: Path, images: Any, said: str) -> None:
    np.savez(tmp_path / "a.npz", images=X, labels=Y)
    for split in ("train", "test"):
        of_file = load(DataConfig(name=f"npz:{tmp_path}/a.npz"), split)[1]  # type: ignore[arg-type]
        task, data, told = in_memory((images, Y), split)  # type: ignore[arg-type]
        assert data.fingerprint == of_file.fingerprint
        assert torch.equal(data.images, of_file.images)
        assert told == ([said] if said else [])
        assert (task.name, task.classes, task.mirror) == ("memory:arrays", ("0", "1"), True)


@pytest.mark.parametrize(
    "labels", [Y.tolist(), Y[:, None], Y.astype(np.uint8), torch.from_numpy(Y), torch.from_numpy(Y).int()]
)
def test_labels_are_integers_of_any_kind(labels: Any) -> None:
    assert in_memory({"train": (X, labels), "test": (X, Y)})[1].labels.tolist() == Y.tolist()


def test_a_shape_with_two_readings_is_decided_and_said() -> None:
    images = pixels(6, 3, 8, 3)
    _, data, told = in_memory((images, Y[:6]), size=8)
    assert data.images.shape[1:] == (3, 8, 8)
    assert told[0] == "memory:arrays: channels last, though they may be first"
    assert "resized from 3x8 to 8x8" in told[1]
    told = in_memory((torch.from_numpy(images), Y[:6]), size=8)[2]
    assert told[0] == "memory:arrays: channels first, though they may be last"
    assert "resized from 8x3" in told[1]


def test_splits_are_found_by_their_usual_names() -> None:
    train, test, other = ((X[:n], Y[:n]) for n in (20, 6, 4))
    for splits in (
        {"train": train, "test": test},
        {"Train": train, "validation": test},
        {"train": train, "val": other, "test": test, "extra": other},
        {"training": train, "valid": test},
    ):
        assert len(in_memory(splits)[1]) == 20
        assert len(in_memory(splits, "test")[1]) == 6
    assert in_memory(ImageData(train, test), "test")[1].name == "memory:arrays"
    assert in_memory({"train": train, "test": test})[2] == []
    assert in_memory({"train": train, "val": test, "extra": other})[2] == [
        "memory:arrays: val is the test split; not used: extra"
    ]


def test_names_come_from_the_dataset_or_the_user() -> None:
    named = Named(X, Y.tolist())
    task = in_memory(named)[0]
    assert (task.name, task.classes) == ("memory:Named", ("cat", "dog"))
    task = in_memory(Subset(named, range(10)))[0]  # type: ignore[arg-type]
    assert (task.name, task.classes) == ("memory:Named", ("cat", "dog"))
    task = in_memory(ImageData(named, classes=["hat", "shoe"], name="my clothes"))[0]
    assert (task.name, task.classes) == ("memory:my clothes", ("hat", "shoe"))
    numbered = Named(X, Y.tolist(), classes=None)
    numbered.class_to_idx = {"dog": 1, "cat": 0}  # type: ignore[attr-defined]
    assert in_memory(numbered)[0].classes == ("cat", "dog")
    assert in_memory(Named(X, Y.tolist(), classes=[3, 4]))[0].classes == ("0", "1")


def test_a_test_split_that_numbers_its_classes_otherwise_is_numbered_as_train() -> None:
    train, test = Named(X, Y.tolist()), Named(X[:4], [0, 0, 1, 0], classes=("dog", "cat"))
    assert in_memory({"train": train, "test": test}, "test")[1].labels.tolist() == [1, 1, 0, 1]
    assert in_memory({"train": train, "test": Named(X[:2], [0, 0], classes=("dog",))})[0].classes
    refuses(
        r"\(test\) has the class 'cow', which train does not have",
        {"train": train, "test": Named(X[:4], [0] * 4, classes=("cow", "cat"))},
    )


def test_an_item_is_read_once_however_many_splits_are() -> None:
    named = Named(X, Y.tolist())
    name, source = opened(named)
    assert name
    assert source
    config = DataConfig(name=name)
    parts = [source.read(config, split, Callback()) for split in ("train", "test", "train")]  # type: ignore[arg-type]
    assert named.reads == 20
    assert sorted(len(part) for part in parts) == [4, 16, 16]
    test = Named(X[:6], Y[:6].tolist())
    in_memory({"train": named, "test": test})
    assert test.reads == 1  # its form is checked before a distillation, and no more is read


def test_size_and_channels_of_the_test_split_are_those_of_train() -> None:
    grey = Named([pixels(8, 8)] * 4, Y[:4].tolist())
    task, test, told = in_memory({"train": (X, Y), "test": grey}, "test")
    assert test.images.shape == (4, *task.shape) == (4, 3, 8, 8)
    assert "memory:arrays (test): 4 images, 4 greyscale repeated to 3 channels" in told


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (X, "is one ndarray, images without labels; give \\(images, labels\\)"),
        (torch.from_numpy(X), "is one Tensor, images without labels"),
        ([X, Y], "is a list of images and labels; write a tuple: \\(images, labels\\)"),
        ({"train": [torch.from_numpy(X), Y.tolist()]}, "memory:list is a list of images and labels"),
        ((X,), "tuple of 1"),
        ((X, Y, X, Y), "tuple of 4, .* give \\(images, labels\\), or {'train'"),
        (((X, Y), (X, Y)), "tuple of 2, of which the first is a tuple"),
        (([X[0], X[1]], Y), "the first is a list"),
        ((), "tuple of 0"),
        ((X, Y[:3]), r"array of labels has shape \[3\] for 20 images"),
        (
            (X, np.eye(2)[Y]),
            r"array of labels has shape \[20, 2\], a row per image; give one label per image: argmax",
        ),
        ((X, Y / 1), "array of labels is float64; labels are integers"),
        ((X, ["cat", "dog"] * 10), "labels are integers 0..K-1; numpy.unique"),
        ((X, None), "for 20 images"),
        ((X, Y + 1), "no image of label 0"),
        ((X, Y - 1), "label -1, out of range"),
        ((X, Y * 0), "one class only"),
        ((X[0], Y), "for 8 images"),
        ((X[..., :2], Y), r"shape \[20, 8, 8, 2\]; images are \[N,H,W\]"),
        ((X > 3, Y), "is bool"),
        ((X - 3.0, Y), "Normalize"),
        ((X[:0], Y[:0]), r"shape \[0, 8, 8, 3\]"),
        ({"images": X, "labels": Y}, "the splits images, labels; they need train"),
        ({}, r"the splits \(none\)"),
        ({"train": "cifar10"}, "is of type str; dataset= takes a name, "),
        (Stream(), "read in one direction only, being of type Stream; give a map-style Dataset"),
        (DataLoader(TensorDataset(torch.zeros(2))), "is a DataLoader; give its Dataset: loader.dataset"),
        (3, "is of type int; dataset= takes"),
        ([], "holds no images"),
        ({"train": (X, Y), "test": (pixels(4, 9, 9), Y[:4])}, "different sizes, 8x8 and 9x9; pass size="),
        (
            {"train": (X, Y), "test": (X[:2], Y[:2] + 2)},
            "memory:arrays \\(test\\) holds the label 3, out of range 0..1",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_sentence(dataset: Any, message: str) -> None:
    refuses(message, dataset)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a/b"}, "name='a/b' is unfit"),
        ({"name": "a\nb"}, "is unfit"),
        ({"name": "x" * 101}, "is unfit"),
        ({"classes": "cat"}, "takes a list of names"),
        ({"classes": ["cat", 3]}, "takes a list of names"),
        ({"classes": ["cat", "cat"]}, "'cat' twice"),
        ({"classes": ["cat"]}, "label 1, out of range 0..0"),
        ({"classes": ["cat", "dog", "cow"]}, "no image of label 2"),
    ],
)
def test_names_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    from dsdistill.errors import UserError

    with pytest.raises(UserError, match=message):
        in_memory(ImageData((X, Y), **options))


def test_data_that_are_no_longer_in_memory_are_asked_for() -> None:
    fails("memory:arrays was data in memory, .* give the same data again as dataset=", "memory:arrays")
    fails("unknown data set 'memory'", "memory")
    name, source = opened("digits")
    assert (name, source) == ("digits", None)
    assert opened(Path("/a/pets")) == ("/a/pets", None)


def test_data_that_are_given_and_named_otherwise_are_refused() -> None:
    _, source = opened((X, Y))
    with pytest.raises(UserError, match=r"gives memory:arrays, and data\.name=digits names other data"):
        load(DataConfig(name="digits"), "train", source=source)
