"""How the pixels of a set are stored: as numbers of a dtype, or coded in a few bits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from dsdistill.config.validation import forbid_extra
from dsdistill.errors import UserError, quoted

Dtype = Literal["float32", "float16", "uint8"]
Auto = Literal["auto"]

PATCH = 4
"""Side of a patch, in pixels: it divides 28 and 32, and all larger sizes in use. The published one is 5."""
GROUPS = 64
_WHOLE_BITS = 6
"""From so many bits on, one quantiser for a whole image costs less than those of patches."""


_LARGEST_IMAGE = 1 << 30
"""Bytes of an image so large that any share of it holds something."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class CodingConfig:
    """Pixels as integers of a few bits: each patch of an image has a scale and an offset.

    It is the post-training quantisation of arXiv 2603.13346 (AAAI 2026): patches, one asymmetric uniform
    quantiser each, which k-means joins into groups, and lossless compression. With ``bits=8`` alone it is an
    affine map of each image's range to 256 levels, which clips nothing.
    """

    bits: Annotated[int, Ge(1), Le(8)] | Auto = "auto"
    """Of a pixel; auto: the number with the least error where there is a budget, else 8."""
    patch: Annotated[int, Ge(0)] | Auto = "auto"
    """Side of a patch in pixels; 0 takes whole images; auto: whole images from 6 bits on, else 4."""
    groups: Annotated[int, Ge(0)] | Auto = "auto"
    """Quantisers that all patches share; 0 gives each its own. auto: as many as the budget allows, else 64;
    whole images have their own."""
    budget: str = ""
    """Bytes that images and labels may take: "7840B", "31 kB", or those of float32 images, of which there are
    as many as in "10 images", or in each class "10 ipc"."""
    refine: Annotated[int, Ge(0)] = 0
    """Steps that move codes so that random networks see the features of the original images."""

    def __post_init__(self) -> None:
        if self.budget:
            bytes_of_budget(self.budget, _LARGEST_IMAGE, _LARGEST_IMAGE)  # whether it is one at all

    def resolved(self, bits: int) -> tuple[int, int]:
        """Return the side of a patch and the groups for a number of bits, without a budget; 0 as above."""
        whole = bits >= _WHOLE_BITS
        patch = self.patch if self.patch != "auto" else (0 if whole else PATCH)
        groups = self.groups if self.groups != "auto" else (GROUPS if patch else 0)
        return patch, groups


Storage = Dtype | CodingConfig

WHOLE_BYTES = CodingConfig(bits=8)
"""A byte a pixel: each image's range in 256 levels."""


def decided_storage(storage: Storage | Auto, whitened: bool) -> Storage:
    """Return how a set is stored.

    In 8 bits students lose nothing that can be told from their spread (``benchmarks/rates.py``). That was
    measured on standardised images. Whitening would multiply the rounding: whitened sets keep float32.

    Args:
        storage: what is asked for; "auto" decides.
        whitened: whether networks see the images whitened.
    """
    if storage != "auto":
        return storage
    return "float32" if whitened else WHOLE_BYTES


_PIXEL_BYTES: dict[Dtype, int] = {"float32": 4, "float16": 2, "uint8": 1}


def pixel_bytes(storage: Storage) -> float:
    """Return the bytes of a stored pixel, before compression, at most.

    Each patch may have a scale and an offset of its own, or the number of a shared one.
    """
    if isinstance(storage, CodingConfig):
        bits = 8 if storage.bits == "auto" else storage.bits
        patch, _ = storage.resolved(bits)
        return bits / 8 + (4 / patch**2 if patch else 0)
    return _PIXEL_BYTES[storage]


_UNITS = {"b": 1, "kb": 1000, "mb": 10**6, "kib": 1 << 10, "mib": 1 << 20}


def bytes_of_budget(text: str, image_bytes: int, classes: int) -> int:
    """Return the bytes of a budget.

    >>> bytes_of_budget("7.84 kB", 3136, 10), bytes_of_budget("2 ipc", 3136, 10)
    (7840, 62720)

    Args:
        image_bytes: of one float32 image, not compressed.
        classes: of the set.

    Raises:
        UserError: it is no budget, or below one image.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = match.group(2).lower() if match else ""
    images = {"image": 1, "images": 1, "ipc": classes}
    if match is None or unit not in {**_UNITS, **images}:
        raise UserError(
            f'a budget is a number of bytes or of float32 images, such as "7840B", "31 kB", "10 images" or '
            f'"10 ipc", not {quoted(text)}'
        )
    amount = float(match.group(1)) * (_UNITS[unit] if unit in _UNITS else images[unit] * image_bytes)
    if amount < 1:
        raise UserError(f"a budget of {text!r} holds nothing; name more bytes")
    return int(amount)
