"""Arrays in files: what is large is mapped, gathered and converted block by block."""

from __future__ import annotations

import gc
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dsdistill.data import archive, mapped
from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.errors import UserError
from tests.helpers.callbacks import Told
from tests.helpers.data import fails, in_memory, pixels

LARGE = 8 * 8 * 3 * 4
"""Bytes: of four images."""
pytestmark = pytest.mark.usefixtures("data_home")


@pytest.fixture
def _small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "IN_MEMORY", LARGE - 1)
    monkeypatch.setattr(mapped, "BLOCK", LARGE // 2)


def test_what_is_mapped_is_told_from_what_is_not() -> None:
    assert not mapped.is_mapped(torch.zeros(3))
    array = mapped.room((3, 4), "it takes")
    assert not mapped.is_mapped(mapped.as_tensor(array))


@pytest.mark.usefixtures("_small_memory")
def test_large_room_is_in_a_file_without_a_name(tmp_path: Path) -> None:
    images = mapped.as_tensor(mapped.room((4, 3, 8, 8), "it takes"))
    assert mapped.is_mapped(images)
    assert mapped.is_mapped(images[1:, :1])
    assert not mapped.is_mapped(images.clone())
    assert not images.any()
    images[2] = 7
    assert int(images.sum()) == 7 * 192
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    del images
    gc.collect()
    assert not mapped._maps


@pytest.mark.usefixtures("_small_memory")
def test_a_full_disk_is_an_error_not_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"it takes .* GB on the disk of .*set DSDISTILL_CACHE"):
        mapped.room((4, 3, 8, 8), "it takes")


@pytest.mark.parametrize(("free", "fits"), [(2 * LARGE, True), (2 * LARGE - 1, False)])
@pytest.mark.usefixtures("_small_memory")
def test_half_of_the_disk_stays_free(monkeypatch: pytest.MonkeyPatch, free: int, fits: bool) -> None:
    monkeypatch.setattr(mapped.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    with nullcontext() if fits else pytest.raises(UserError, match=r"half may be taken\); pass less, or set"):
        mapped.room((4, 3, 8, 8), "it takes", "pass less")


@pytest.mark.usefixtures("_small_memory")
def test_gathering_is_indexing() -> None:
    images, rows = torch.from_numpy(pixels(9, 3, 8, 8)), torch.tensor([8, 0, 0, 3, 5])
    parts = mapped.gathered(images, rows)
    assert torch.equal(parts, images[rows])
    assert mapped.is_mapped(parts)
    assert not mapped.is_mapped(mapped.gathered(images, rows[:2]))


@pytest.mark.usefixtures("_small_memory")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "convert",
    [
        lambda images: images,
        lambda images: images.transpose(0, 2, 3, 1),
        lambda images: np.ascontiguousarray(images.transpose(0, 2, 3, 1)),
        lambda images: images / 255,
        lambda images: images.astype(np.float16),
        lambda images: images[:, 0],
        lambda images: np.asfortranarray(images),
    ],
)
def test_a_large_npz_gives_the_same_bytes(tmp_path: Path, save: Any, convert: Any) -> None:
    images, labels = pixels(20, 3, 8, 8), np.arange(20) % 2
    images[0] = 255
    save(
        tmp_path / "large.npz", x_train=convert(images), y_train=labels, x_test=convert(images), y_test=labels
    )
    save(tmp_path / "whole.npz", images=convert(images), labels=labels)
    _, data = load(DataConfig(name=f"npz:{tmp_path / 'large.npz'}"), "train")
    expected = images[:, :1] if convert(images).ndim == 3 else images
    assert torch.equal(data.images, torch.from_numpy(np.ascontiguousarray(expected)))
    assert mapped.is_mapped(data.images)
    assert data.memory_bytes == 0
    assert data.fingerprint == type(data)("", "", data.images.clone(), data.labels, data.classes).fingerprint
    parts = [
        load(DataConfig(name=f"npz:{tmp_path / 'whole.npz'}", test_fraction=0.3), each)[1] for each in _SPLITS
    ]
    assert sum(int(each.images.sum()) for each in parts) == int(expected.sum())


_SPLITS: Any = ("train", "test")


@pytest.mark.usefixtures("_small_memory")
def test_an_array_in_columns_is_read_into_memory_if_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", images=np.asfortranarray(pixels(20, 3, 8, 8)), labels=np.arange(20) % 2)
    claims: list[str] = []
    monkeypatch.setattr(archive, "check_memory", lambda claim, *_: claims.append(claim))
    load(DataConfig(name=f"npz:{tmp_path / 'a.npz'}"), "train")
    assert any("images takes" in claim for claim in claims)


@pytest.mark.usefixtures("_small_memory")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_byte_of_a_large_npz_is_noticed(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "a.npz"
    save(path, images=pixels(20, 3, 8, 8), labels=np.arange(20) % 2)
    raw = bytearray(path.read_bytes())
    raw[1000] ^= 1
    path.write_bytes(raw)
    fails("as an npz file of plain arrays", f"npz:{path}")


@pytest.mark.usefixtures("_small_memory")
def test_data_of_ones_own_are_kept_in_a_file_if_they_are_large() -> None:
    images, labels = pixels(20, 3, 8, 8), np.arange(20) % 2
    pairs = list(zip(images, labels.tolist(), strict=True))
    for dataset in ((images, labels), pairs):
        _, data, _ = in_memory(dataset)
        assert mapped.is_mapped(data.images)
        assert len(data) == 16
        kept = torch.isin(_sums(images), _sums(data.images))
        assert torch.equal(data.images, torch.from_numpy(images)[kept])
    _, grey_first, _ = in_memory([(images[0][:1], 0), (images[1][:1], 1), (images[2], 0), *pairs[3:]])
    assert grey_first.images.shape[1] == 3


def _sums(images: Any) -> torch.Tensor:
    """Return a number that tells an image from others."""
    return torch.as_tensor(np.asarray(images)).flatten(1).double() @ torch.arange(192).double()


@pytest.mark.usefixtures("_small_memory")
def test_size_channels_and_margins(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=pixels(20, 3, 8, 8), labels=np.arange(20) % 2)

    def read() -> list[torch.Tensor]:
        options: list[dict[str, Any]] = [{"size": 12}, {"channels": 1}, {"size": 12, "pad": True}]
        return [
            load(DataConfig(name=f"npz:{tmp_path / 'a.npz'}", **each), "train")[1].images for each in options
        ]

    in_files = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "IN_MEMORY", 1 << 30)
        assert all(map(torch.equal, in_files, read()))
    assert all(map(mapped.is_mapped, in_files))


def test_reading_much_is_reported_in_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 1000, 1000), np.uint8), labels=np.arange(4) % 2)
    monkeypatch.setattr(mapped, "IN_MEMORY", 1 << 20)
    reports: list[tuple[str, int, int]] = []
    load(DataConfig(name=f"npz:{tmp_path / 'a.npz'}"), "train", Told(read=lambda *each: reports.append(each)))
    assert {what.rpartition(": ")[2] for what, _, _ in reports} == {
        "reading images, MB",
        "hashing, MB",
        "reading images",
    }
    assert all(0 <= done <= total for _, done, total in reports)
