"""Images that may be more than memory holds: arrays in files, of which the system keeps what is being read.

Pages of a file are no memory of the process: the system drops those that it needs for something else.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from dsdistill.errors import UserError
from dsdistill.files import cache_folder, reason
from dsdistill.runtime.device import check_memory
from dsdistill.runtime.notice import Progress

IN_MEMORY = 1 << 30
"""Bytes that an array of images may take in memory; a larger one is in a file."""
BLOCK = 1 << 26
"""Bytes of images that are converted, copied or hashed at once."""

_maps: weakref.WeakValueDictionary[int, NDArray[Any]] = weakref.WeakValueDictionary()
"""Arrays in files by their address, as long as they live."""


def is_large(shape: Sequence[int], dtype: DTypeLike = np.uint8) -> bool:
    """Whether an array belongs into a file.

    >>> is_large((50_000, 3, 32, 32)), is_large((1_281_167, 3, 64, 64))
    (False, True)
    """
    return math.prod(shape) * np.dtype(dtype).itemsize > IN_MEMORY


def rows_of(image_bytes: int) -> int:
    """Return how many images of so many bytes are taken at once.

    >>> rows_of(3 * 64 * 64)
    5461
    """
    return max(1, BLOCK // max(1, image_bytes))


def megabytes(what: str, progress: Progress) -> Callable[[int, int], None]:
    """Return a function that reports bytes done, and all of them, in megabytes, if they are of a large array.

    >>> advance = megabytes("reading", lambda *report: print(*report))
    >>> advance(12_300_000, 5_000_000_000)
    reading, MB 12 5000

    Args:
        what: is done with them.
        progress: hears of it, once for each megabyte.
    """
    last = -1

    def advance(done: int, total: int) -> None:
        nonlocal last
        if total > IN_MEMORY and done // 10**6 > last:
            last = done // 10**6
            progress(f"{what}, MB", last, total // 10**6)

    return advance


def room(shape: Sequence[int], claim: str, remedy: str = "") -> NDArray[np.uint8]:
    """Return an array of bytes to fill: in memory, or if it is large in a file that goes with the process.

    The file has no name. It lies in the cache's folder and has its room on the disk from the start: a disk
    that is full later would end the process.

    Args:
        shape: of the array.
        claim: the beginning of an error's sentence, with its verb: "the decoded images take".
        remedy: the end of it.

    Raises:
        UserError: there is no room in memory, or on the disk.
    """
    if not is_large(shape):
        check_memory(claim, math.prod(shape), remedy)
        return np.empty(shape, np.uint8)
    folder, size = cache_folder(), math.prod(shape)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(folder, file.fileno(), size)
            return np.memmap(file, np.uint8, "r+", shape=tuple(shape))
    except OSError as error:
        raise UserError(
            f"{claim} {size / 1e9:.3g} GB on the disk of {folder} ({reason(error)}); "
            f"{remedy or 'free space there'}, or set DSDISTILL_CACHE"
        ) from error


def _reserve(folder: Path, handle: int, size: int) -> None:
    """Give a file so many bytes on the disk, of which as many stay free.

    Raises:
        OSError: the disk has not as many.
    """
    if 2 * size > (free := shutil.disk_usage(folder).free):
        raise OSError(errno.ENOSPC, f"of the {free / 1e9:.3g} GB that are free, half may be taken")
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)


def opened(file: BinaryIO, dtype: np.dtype, shape: Sequence[int], offset: int) -> NDArray[Any]:
    """Map an array in a file.

    The map is copy-on-write, so that a stray write cannot reach the file. It is read-only if the system
    refuses the memory that copies of all pages would need (tens of gigabytes for ImageNet).

    Args:
        file: open for reading; the map outlives it.
        dtype, shape: of the array, in C order.
        offset: of its first byte.

    Raises:
        OSError, ValueError: the file has not as many bytes, or cannot be mapped.
    """
    try:
        return np.memmap(file, dtype, "c", offset, tuple(shape))
    except OSError:  # the error number of a refusal differs between systems
        return np.memmap(file, dtype, "r", offset, tuple(shape))


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Return a tensor of an array's own memory; of a map it is to be read only."""
    if isinstance(array, np.memmap):
        _maps[array.__array_interface__["data"][0]] = array
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def is_mapped(images: Tensor) -> bool:
    """Whether a tensor, or what it is a view of, is in a file."""
    return images.device.type == "cpu" and images.untyped_storage().data_ptr() in _maps


def gathered(images: Tensor, rows: Tensor) -> Tensor:
    """Return images at some positions, block by block.

    Args:
        images: uint8 [N, C, H, W].
        rows: int64 [n], on their device.

    Raises:
        UserError: there is no room for them.
    """
    shape = (len(rows), *images.shape[1:])
    if images.device.type != "cpu" or not is_large(shape):
        return images[rows]
    filled = as_tensor(room(shape, f"{len(rows)} images take"))
    size = rows_of(images[0].nbytes)
    for start in range(0, len(rows), size):
        filled[start : start + size] = images[rows[start : start + size]]
    return filled
