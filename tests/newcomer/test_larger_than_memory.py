"""A newcomer's images are in a file of their own, which is read and never changed; by public names only."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import dsdistill


def test_images_in_an_array_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "images.npy"
    writable = np.lib.format.open_memmap(file, "w+", np.uint8, (40, 3, 8, 8))
    writable[:] = np.random.default_rng(0).integers(0, 256, writable.shape)
    writable.flush()
    before = file.read_bytes()
    images, labels = np.load(file, mmap_mode="r"), np.arange(40) % 2
    summary = dsdistill.distill(
        tmp_path / "set.h5", dataset=(images, labels), ipc=1, network="convnet2-w8", iterations=2
    )
    assert summary.images == 2
    assert file.read_bytes() == before
