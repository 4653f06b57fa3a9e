"""Npz files that claim more than they hold, or are not what numpy writes: refused from their headers."""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.runtime import device
from tests.helpers.data import fails, pixels
from tests.helpers.mutants import refusal

pytestmark = pytest.mark.usefixtures("data_home")


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    """Return an npy file of a header alone."""
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode()


def claiming(shape: str, dtype: str = "|u1") -> bytes:
    return header(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n")


def zipped(path: Path, images: bytes, compression: int = zipfile.ZIP_DEFLATED, twice: bool = False) -> str:
    """Write an npz file whose images are given as bytes."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("images.npy", images)
        file.writestr("labels.npy", npy(np.array([0, 1, 0, 1])))
        if twice:
            file.writestr("images", images)
    return f"npz:{path}"


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (claiming("(4, 2147483647, 2147483647)"), "does not fit its content"),
        (claiming("(4, 8, 8)") + bytes(255), "does not fit its content"),
        (claiming("(4, 8, 8)") + bytes(257), "does not fit its content"),
        (claiming("(-4, -8, 8)") + bytes(256), "Python objects"),
        (claiming("(4, 8, 8)", "|O") + bytes(256), "Python objects"),
        (claiming("(4.0, 8)"), "shape is not valid"),
        (header("-" * 9000 + "1\n"), ""),
        (header("(" * 9000 + "\n"), ""),
        (header("{'descr': " + "[" * 300 + "\n"), ""),
        (header("", b"\x09\x00"), "version"),
        (b"not an array", "magic string"),
        (b"", "EOF|expected"),
    ],
)
def test_headers_that_are_refused(tmp_path: Path, images: bytes, said: str) -> None:
    fails(rf"cannot read .*plain arrays \(images: .*{said}", zipped(tmp_path / "a.npz", images))


def test_encrypted_members_other_compression_and_names_twice(tmp_path: Path) -> None:
    images = npy(pixels(4, 8, 8))
    file = zipped(tmp_path / "plain.npz", images)
    data = bytearray((tmp_path / "plain.npz").read_bytes())
    for place in (data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8):
        data[place] |= 1
    (tmp_path / "locked.npz").write_bytes(data)
    fails("images: it is encrypted", f"npz:{tmp_path / 'locked.npz'}")
    fails("compressed in another way", zipped(tmp_path / "lzma.npz", images, zipfile.ZIP_LZMA))
    fails("holds 'images' twice", zipped(tmp_path / "twice.npz", images, twice=True))
    assert len(load(DataConfig(name=file, test_fraction=0.5), "train")[1]) == 2


def test_arrays_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = npy(np.zeros((4, 1000, 1000), np.uint8))
    file = zipped(tmp_path / "a.npz", blank)
    monkeypatch.setattr(device, "available_memory", lambda device: 1_000_000)
    fails("images takes 0.012 GB of memory, and 0.001 GB are free", file)


def test_pipes_and_folders(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    fails("it is a pipe", f"npz:{tmp_path / 'pipe'}")
    fails("it is a folder", f"npz:{tmp_path}")


def test_flipped_bytes_never_go_unnoticed(tmp_path: Path) -> None:
    """Checksums of the zip cover the arrays; what is left is refused in one line or is no part of them."""
    whole, path = tmp_path / "whole.npz", tmp_path / "mutant.npz"
    splits = {"x_train": pixels(6, 8, 8), "y_train": np.array([0, 1, 2] * 2)}
    splits |= {"x_test": pixels(3, 8, 8), "y_test": np.arange(3)}
    np.savez_compressed(whole, **splits)
    data = whole.read_bytes()
    fingerprint = load(DataConfig(name=f"npz:{whole}"), "train")[1].fingerprint
    found = set()
    for seed in range(150):
        draw, mutant = random.Random(seed), bytearray(data)
        for _ in range(draw.choice([1, 1, 8])):
            mutant[draw.randrange(len(mutant))] = draw.randrange(256)
        path.write_bytes(mutant)
        sentence = refusal(lambda: load(DataConfig(name=f"npz:{path}"), "train"))
        assert "\n" not in sentence, seed
        if not sentence:
            assert load(DataConfig(name=f"npz:{path}"), "train")[1].fingerprint == fingerprint, seed
        found.add("refused" if sentence else "read")
    assert found == {"refused", "read"}
