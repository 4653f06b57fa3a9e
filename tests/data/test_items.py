"""Images that are read one by one from a Dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.data.memory import opened
from tests.helpers.callbacks import Told
from tests.helpers.data import in_memory, pixels, refuses, save

pytestmark = pytest.mark.usefixtures("data_home")

IMAGES = [pixels(8, 8, 3, seed=seed) for seed in range(6)]
LABELS = [0, 1] * 3


def pairs(images: list[Any], labels: list[Any] = LABELS) -> dict[str, Any]:
    """Return a train split, and a test split of its first two items."""
    train = list(zip(images, labels, strict=True))
    return {"train": train, "test": train[:2]}


@pytest.mark.parametrize(
    "convert",
    [
        Image.fromarray,
        lambda image: image,
        lambda image: torch.from_numpy(image).permute(2, 0, 1),
        lambda image: torch.from_numpy(image).permute(2, 0, 1) / 255,
        lambda image: image.astype(np.float64),
    ],
)
@pytest.mark.parametrize("label", [int, np.int64, torch.tensor, lambda label: torch.tensor([label])])
def test_pictures_tensors_and_arrays_give_the_same_bytes(convert: Any, label: Any) -> None:
    _, train, _ = in_memory(pairs([convert(image) for image in IMAGES], [label(each) for each in LABELS]))
    assert torch.equal(train.images, torch.from_numpy(np.stack(IMAGES)).permute(0, 3, 1, 2))
    assert train.labels.tolist() == LABELS


def test_pictures_are_converted_as_those_of_a_folder(tmp_path: Path) -> None:
    """Of several sizes and modes, resized as is asked."""
    transparent = np.dstack([pixels(8, 8, 3), pixels(8, 8)])
    files = [*IMAGES[:2], pixels(12, 9, 3), pixels(8, 8), pixels(8, 8).astype(np.uint16) * 200, transparent]
    for split in ("train", "test"):
        for number, image in enumerate(files):
            save(tmp_path / "pets" / split / "ab"[number % 2] / f"{number}.png", image)
    name, options = f"folder:{tmp_path / 'pets'}", {"size": 6, "range": 60000}
    told: list[str] = []
    of_folder = load(DataConfig(name=name, **options), "train", Told(notify=told.append))[1]  # type: ignore[arg-type]
    order = [*files[::2], *files[1::2]]
    _, train, said = in_memory(
        pairs([Image.fromarray(image) for image in order], [0, 0, 0, 1, 1, 1]), **options
    )
    assert torch.equal(train.images, of_folder.images)
    assert [each.partition(": ")[2] for each in said] == [each.partition(": ")[2] for each in told]


def test_the_first_coloured_image_gives_all_three_channels() -> None:
    images = [pixels(8, 8), IMAGES[0], pixels(8, 8), *IMAGES[1:4]]
    task, train, told = in_memory(pairs([Image.fromarray(image) for image in images]))
    assert task.channels == 3
    assert torch.equal(train.images[0], torch.from_numpy(images[0]).expand(3, 8, 8))
    assert torch.equal(train.images[3], torch.from_numpy(images[3]).permute(2, 0, 1))
    assert told == ["memory:list (train): 6 images, 2 greyscale repeated to 3 channels"]
    assert in_memory(pairs(images), channels=1)[0].channels == 1


def test_a_dataset_of_tensors_is_read_with_progress() -> None:
    images, labels = torch.rand(300, 1, 8, 8), torch.arange(300) % 3
    name, source = opened(TensorDataset(images, labels))
    calls: list[tuple[str, int, int]] = []
    load(DataConfig(name=str(name)), "train", Told(read=lambda *call: calls.append(call)), source)
    what = "memory:TensorDataset: reading"
    assert calls == [(what, 0, 300), (what, 256, 300), (what, 300, 300)]


def test_images_of_several_sizes_need_one() -> None:
    ragged = pairs([*IMAGES[:5], pixels(9, 7, 3)])
    refuses(r"\(train\): image 5 is 9x7, and image 0 is 8x8; pass size=… \(--size\) to resize all", ragged)
    assert in_memory(ragged, size=4)[0].shape == (3, 4, 4)
    wide = pairs([pixels(8, 10, 3)] * 6)
    _, train, told = in_memory(wide)
    assert train.images.shape == (6, 3, 8, 8)
    assert "6 not 8x8 resized" in told[0]
    refuses("different sizes, 8x8 and 8x10", {"train": pairs(IMAGES)["train"], "test": wide["test"]})
    refuses(
        "image 1 is 8x8, and image 0 is 8x10",
        {"train": wide["train"], "test": [*wide["test"][:1], *pairs(IMAGES)["test"]]},
        "test",
    )


class Failing(Dataset[Any]):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        if index == 3:
            raise self.error
        return IMAGES[index], LABELS[index]


class Endless(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return IMAGES[0], 0


def test_a_dataset_that_fails_is_named_with_the_item_and_the_cause() -> None:
    refuses(
        r"memory:Failing: item 3 raises OSError \(disk on fire\); mend the Dataset, or leave that item out",
        Failing(OSError("disk on fire\nsecond line")),
    )
    refuses(r"item 3 raises KeyError \(name\)", Failing(KeyError("name")))
    with pytest.raises(MemoryError):
        in_memory(Failing(MemoryError()))
    refuses("Endless has no length; give a map-style Dataset", Endless())


def test_a_truncated_picture_is_an_item_that_fails(tmp_path: Path) -> None:
    Image.fromarray(pixels(64, 64, 3)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-900])
    with Image.open(tmp_path / "a.jpg") as damaged:
        refuses("item 2 raises OSError", pairs([Image.fromarray(pixels(64, 64, 3))] * 2 + [damaged] * 4))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((IMAGES[0],), r"item 0 is 1 values, not \(image, label\)"),
        ((IMAGES[0], 0, "a.png"), "item 0 is 3 values"),
        ({"image": IMAGES[0], "label": 0}, "item 0 is a mapping of image, label"),
        (IMAGES[0], "item 0 is a ndarray, not|is a list of images and labels; write a tuple"),
        (None, "item 0 is a NoneType"),
        ((IMAGES[0], None), "item 0 has the label None; labels are integers"),
        ((IMAGES[0], "cat"), "item 0 has the label 'cat'"),
        ((IMAGES[0], True), "item 0 has the label True"),
        ((IMAGES[0], 1.0), r"item 0 has the label 1\.0"),
        ((IMAGES[0], torch.eye(3)[0]), r"item 0 has 3 numbers as its label; give one, the class: argmax\(\)"),
        ((IMAGES[0], -1), "label -1, out of range"),
        ((IMAGES[0], 2**70), "labels are integers|out of range"),
        (("a.png", 0), "image 0 is a str; give images of Pillow, tensors or arrays"),
        ((IMAGES[0][..., :2], 0), r"shape \[1, 8, 8, 2\]"),
        ((torch.randn(3, 8, 8), 0), "Normalize"),
        ((Image.fromarray(pixels(8, 8).astype(np.float32)), 0), "floating-point pixels"),
    ],
)
def test_items_of_another_form_are_refused(item: Any, message: str) -> None:
    refuses(message, [item] * 6)
    good = pairs(IMAGES)["train"]
    refuses(message, {"train": good, "test": [item] * 2})  # before the distillation, not after it


def test_images_of_two_ranges_are_refused() -> None:
    images = [torch.full((1, 8, 8), value) for value in (0.5, 0.5, 200.0, 200.0, 0.0, 0.0)]
    refuses("images up to 0.5 and others up to 200", pairs(images))
    assert in_memory(pairs([image.clamp(max=0.5) for image in images]))[2] == [
        "memory:list (train): values in 0..1, 1 is white"
    ]
