"""The coding of images that fits into a number of bytes and changes pixels least."""

from __future__ import annotations

import io
import math

import h5py
from torch import Tensor

from dsdistill.config.storage import CodingConfig
from dsdistill.errors import UserError
from dsdistill.storage.set_file import stored_bytes
from dsdistill.storage.set_schema import fill_coded
from dsdistill.synthetic.coded import CodedPixels, Coder

_MOST_GROUPS = 1024
"""Of quantisers that the search tries: more of them take more bytes than they save."""
_BITS = 8


def coded(images: Tensor, config: CodingConfig, room: int | None = None, seed: int = 0) -> CodedPixels:
    """Code images as options say.

    Args:
        images: float32 [N, C, H, W].
        config: its budget aside.
        room: bytes that the images may take in a file, compressed; None for any number.
        seed: of k-means.

    Raises:
        UserError: as `Coder`; or nothing fits.
    """
    if room is None:
        bits = _BITS if config.bits == "auto" else config.bits
        patch, groups = config.resolved(bits)
        return Coder(images, patch, seed).code(bits, groups)
    coders: dict[int, Coder] = {}
    best: CodedPixels | None = None
    smallest: tuple[int, str] | None = None
    least = math.inf
    for bits in range(1, _BITS + 1) if config.bits == "auto" else [config.bits]:
        patch, groups = config.resolved(bits)
        coder = coders.setdefault(patch, Coder(images, patch, seed))
        for count in [groups] if config.groups != "auto" or not patch else _counts(coder.patches):
            found = coder.code(bits, count)
            size = bytes_of(found)
            smallest = min(filter(None, (smallest, (size, found.words))))
            if size > room:
                break  # more quantisers take more
            error = float((found.decode() - images).square().mean())
            if error < least:
                best, least = found, error
    if best is None:
        assert smallest is not None
        raise UserError(
            f"the budget leaves {max(0, room):,} bytes for the images, which take {smallest[0]:,} "
            f"({smallest[1]}): allow more bytes, fewer bits, or store fewer images"
        )
    return best


def bytes_of(coded: CodedPixels) -> int:
    """Return the bytes of coded pixels in a file, compressed."""
    with h5py.File(io.BytesIO(), "w") as file:
        return stored_bytes(fill_coded(file, coded))


def _counts(patches: int) -> list[int]:
    """Return the numbers of shared quantisers that are tried: powers of two."""
    return [1 << power for power in range(_MOST_GROUPS.bit_length()) if 1 << power <= patches]
