"""The arrays of an npz file as a data set, and what is wrong with some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from tests.helpers.callbacks import Told
from tests.helpers.data import fails, pixels

pytestmark = pytest.mark.usefixtures("data_home")


def npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return f"npz:{path}"


def test_npz_with_splits_in_every_layout(tmp_path: Path) -> None:
    channels_last, y = pixels(6, 8, 8, 3), np.array([0, 1, 2] * 2)
    expected = torch.from_numpy(channels_last).permute(0, 3, 1, 2)
    layouts = {
        "hwc": channels_last,
        "chw": channels_last.transpose(0, 3, 1, 2),
        "float": (channels_last / 255).astype(np.float32),
    }
    for name, x in layouts.items():
        file = npz(tmp_path / f"{name}.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3, None])
        task, train = load(DataConfig(name=file), "train")
        _, test = load(DataConfig(name=file), "test")
        assert torch.equal(train.images, expected)
        assert torch.equal(test.images, expected[:3])
        assert test.labels.tolist() == [0, 1, 2]
        assert task.classes == ("0", "1", "2")


def test_npz_without_splits(tmp_path: Path) -> None:
    file = npz(
        tmp_path / "a.npz",
        images=pixels(20, 9, 7),
        labels=np.arange(20) % 2,
        classes=np.array(["hat", "shoe"]),
    )
    told: list[str] = []
    task, train = load(DataConfig(name=file, test_fraction=0.1), "train", Told(notify=told.append))
    assert (task.classes, task.shape) == (("hat", "shoe"), (1, 7, 7))
    assert train.counts.tolist() == [9, 9]
    assert told == [f"{file} (train): 18 images, resized from 9x7 to 7x7 (bilinear, antialiased)"]
    assert load(DataConfig(name=file, test_fraction=0.1), "test")[1].counts.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "holds the keys labels; it needs"),
        ({"images": pixels(4, 8)}, r"shape \[4, 8\]"),
        ({"images": pixels(4, 8, 8, 5)}, "1 or 3 channels"),
        ({"images": pixels(4, 8, 8).astype(np.complex64)}, "is complex64; images are uint8"),
        ({"images": pixels(4, 8, 8) / 100}, r"up to 2\.55, nearly black"),
        ({"images": np.full((4, 8, 8), np.nan)}, "not numbers"),
        ({"labels": np.array([0, 1, 0])}, r"shape \[3\] for 4 images"),
        ({"labels": np.array([0.0, 1, 0, 1])}, "labels are integers"),
        ({"labels": np.array([0, -1, 0, 1])}, "label -1, out of range"),
        ({"labels": np.array([0, 0, 2, 2])}, "no image of label 1"),
        ({"labels": np.array([0, 1, 0, 10**8])}, "no image of label 2"),
        ({"labels": np.array([0, 1, 0, 2**32 - 1], np.uint32)}, "no image of label 2"),
        ({"labels": np.array([0, 1, 0, 2**64 - 1], np.uint64)}, "label 18446744073709551615, out of range"),
        ({"labels": np.array(3)}, r"shape \[\] for 4 images"),
        ({"labels": np.array([True, False] * 2)}, "labels are integers"),
        ({"images": pixels(0, 8, 8), "labels": np.arange(0)}, r"shape \[0, 8, 8\]"),
        ({"labels": np.array([0, 0, 0, 0])}, "one class only"),
        ({"classes": np.array(["only"])}, "label 1, out of range 0..0"),
        ({"classes": np.array([1, 2])}, "list of class names"),
        ({"classes": np.array("cat")}, "list of class names"),
        ({"classes": np.array(["cat", "cat"])}, "'cat' twice"),
        ({"classes": np.array([b"cat", b"\xff"])}, "not UTF-8"),
        ({"classes": np.array(["cat", "a\0b"])}, "no file can store"),
        ({"classes": np.array(["cat", "\ud800"])}, "no file can store"),
        ({"classes": np.array(["a", "b", "c"])}, "no image of label 2"),
        ({"classes": np.array([None, "x"], dtype=object)}, "as an npz file of plain arrays"),
    ],
)
def test_npz_errors(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    arrays = {"images": pixels(4, 8, 8), "labels": np.array([0, 1, 0, 1]), **change}
    fails(
        message, npz(tmp_path / "a.npz", **{key: value for key, value in arrays.items() if value is not None})
    )


def test_npz_files_that_are_none(tmp_path: Path) -> None:
    fails("no such file", f"npz:{tmp_path / 'nowhere.npz'}")
    (tmp_path / "text.npz").write_text("hello")
    fails("not an npz file", f"npz:{tmp_path / 'text.npz'}")
    np.save(tmp_path / "one.npy", pixels(2, 2))
    fails("not an npz file", f"npz:{tmp_path / 'one.npy'}")
    x, y = pixels(4, 8, 8), np.array([0, 1, 0, 1])
    damaged = npz(tmp_path / "damaged.npz", images=x, labels=y)
    raw = bytearray((tmp_path / "damaged.npz").read_bytes())
    raw[200] ^= 255  # a pixel: the archive's checksum notices
    (tmp_path / "damaged.npz").write_bytes(raw)
    fails("as an npz file of plain arrays", damaged)
    odd = npz(tmp_path / "odd.npz", x_train=x, y_train=y, x_test=pixels(4, 9, 9), y_test=y)
    fails("different shapes", odd, "test")
    beyond = npz(tmp_path / "beyond.npz", x_train=x, y_train=y, x_test=x, y_test=y + 1)
    fails("y_test holds the label 2, out of range 0..1", beyond, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_test": np.array([0, 1, 3])}, "y_test holds the label 3, out of range 0..1"),
        ({"y_test": np.array([0, 1, 10**8])}, "y_test holds the label 100000000"),
        ({"y_test": np.array([0, -1, 1])}, "y_test holds the label -1"),
        ({"y_test": np.array([0.5, 1, 0])}, "y_test is float64"),
        ({"y_test": np.array([0, 1])}, r"y_test has shape \[2\] for 3 images"),
        ({"y_test": np.array(1)}, r"y_test has shape \[\]"),
        ({"x_test": pixels(0, 8, 8), "y_test": np.arange(0)}, r"x_test has shape \[0, 8, 8\]"),
        ({"x_test": pixels(3, 9, 9)}, "different shapes"),
        ({"x_test": pixels(3, 8, 8, 3)}, "different shapes"),
        ({"x_test": pixels(3, 8, 8).astype(bool)}, "x_test is bool"),
        ({"x_test": np.array([None] * 3)}, "as an npz file of plain arrays"),
    ],
)
def test_a_bad_test_split_is_found_when_train_is_read(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    arrays = {"x_train": pixels(4, 8, 8), "y_train": np.array([0, 1] * 2)}
    arrays |= {"x_test": pixels(3, 8, 8), "y_test": np.array([0, 1, 1])}
    for split in ("train", "test"):
        fails(message, npz(tmp_path / "a.npz", **(arrays | change)), split)
