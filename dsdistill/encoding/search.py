"""The coding of images that fits into a number of bytes and changes pixels least."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import h5py
from torch import Tensor

from dsdistill.config.storage import CodingConfig
from dsdistill.errors import UserError
from dsdistill.storage.set_schema import fill_coded
from dsdistill.storage.set_sizes import stored_bytes
from dsdistill.synthetic.coded import CodedPixels, Coder

_MOST_GROUPS = 1024
"""Of quantisers that the search tries: more of them take more bytes than they save."""
_BITS = 8


def coded(images: Tensor, config: CodingConfig, room: int | None = None) -> CodedPixels:
    """Code images as options say.

    Args:
        images: float32 [N, C, H, W].
        config: its budget and refining aside.
        room: bytes that the images may take in a file, compressed; None for any number.

    Raises:
        UserError: as `Coder`; or nothing fits.
    """
    if room is None:
        bits = _BITS if config.bits == "auto" else config.bits
        patch, groups = config.resolved(bits)
        return Coder(images, patch).code(bits, groups)
    best: CodedPixels | None = None
    smallest, least = (math.inf, ""), math.inf
    for candidate in _candidates(images, config):
        size, error = bytes_of(candidate), float((candidate.decode() - images).square().mean())
        smallest = min(smallest, (size, candidate.words))
        if size <= room and error < least:
            best, least = candidate, error
    if best is None:
        raise UserError(
            f"the budget leaves {max(0, room):,} bytes for the images, which take {smallest[0]:,} at least "
            f"({smallest[1]}): allow more bytes, or store fewer images"
        )
    return best


def _candidates(images: Tensor, config: CodingConfig) -> Iterator[CodedPixels]:
    """Yield the images in every coding that options leave open."""
    coders: dict[int, Coder] = {}
    for bits in range(1, _BITS + 1) if config.bits == "auto" else [config.bits]:
        patch, groups = config.resolved(bits)
        if patch not in coders:
            coders[patch] = Coder(images, patch)
        coder = coders[patch]
        own = config.groups != "auto" or not patch
        for count in [groups] if own else _counts(coder.patches):
            yield coder.code(bits, count)


def bytes_of(coded: CodedPixels) -> int:
    """Return the bytes of coded pixels in a file, compressed."""
    with h5py.File(io.BytesIO(), "w") as file:
        return stored_bytes(fill_coded(file, coded))


def _counts(patches: int) -> list[int]:
    """Return the numbers of shared quantisers that are tried: powers of two, and 0, one for each patch."""
    powers = [1 << power for power in range(_MOST_GROUPS.bit_length()) if 1 << power < patches]
    return [*powers, 0] if patches <= _MOST_GROUPS else powers
