"""Pixels coded in a few bits: patches of images, each quantised by a scale and an offset.

Coded pixels q, from 0 to 2ᵇ - 1, stand for ``offset + scale · q``. A patch has a quantiser of its own, or
shares one with the patches whose ranges are alike (post-training quantisation, arXiv 2603.13346).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.data.selection import lloyd
from dsdistill.errors import UserError

LARGEST = torch.finfo(torch.float16).max
"""Of a pixel: scales and offsets are stored as float16."""
_BYTES_AT_ONCE = 1 << 20
"""That are packed, or read, at once."""
_CLUSTERED = 1 << 16
"""Ranges of patches that k-means goes by, at most: of more, every second, third and so on."""


@dataclass(frozen=True)
class Coding:
    """How pixels are coded.

    Attributes:
        bits: of a pixel, 1 to 8.
        patch: side of a patch; 0 for whole images.
        groups: quantisers that patches share; 0 where each has its own.
    """

    bits: int
    patch: int
    groups: int


@dataclass(frozen=True, eq=False)
class CodedPixels:
    """Images as integers, and what turns them into pixels; checked on construction.

    Attributes:
        codes: uint8 [N, P, n], pixels of the P patches of an image, from 0 to 2^bits - 1. A patch of side p
            has n = p² pixels of one channel, row by row; patches go channel by channel, row by row. Whole
            images have P = 1 and n = C·H·W.
        scales, offsets: float16 [G], of the quantisers; a scale is not negative.
        groups: int64 [N, P], the quantiser of each patch; None where G = N·P and each has its own.
        bits: of a code, 1 to 8.
        patch: side of a patch; 0 for whole images. Patches at the right and the lower border may exceed the
            image; what lies outside is cut off.
        shape: C, H, W of an image.

    Raises:
        ValueError: on construction, where a part does not fit the others.
    """

    codes: Tensor
    scales: Tensor
    offsets: Tensor
    groups: Tensor | None
    bits: int
    patch: int
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        count, patches, _ = self.codes.shape
        quantisers = len(self.scales)
        if not 1 <= self.bits <= 8 or int(self.codes.max()) >> self.bits:
            raise ValueError("a code has more bits than it may")
        if tuple(self.codes.shape[1:]) != _patch_shape(self.shape, self.patch):
            raise ValueError("the codes are of images of another size")
        if self.offsets.shape != self.scales.shape or not quantisers:
            raise ValueError("scales and offsets are of different number")
        if not (self.scales.isfinite().all() and self.offsets.isfinite().all() and (self.scales >= 0).all()):
            raise ValueError("a scale or an offset is not finite, or a scale negative")
        if self.groups is None:
            if quantisers != count * patches:
                raise ValueError("not every patch has a quantiser")
        elif tuple(self.groups.shape) != (count, patches) or not (
            int(self.groups.min()) >= 0 and int(self.groups.max()) < quantisers
        ):
            raise ValueError("the groups are not those of the patches")

    def decode(self) -> Tensor:
        """Return the pixels, float32 [N, C, H, W]."""
        scales, offsets = self.quantisers()
        return from_patches(self.codes.float().mul_(scales).add_(offsets), self.shape, self.patch)

    def quantisers(self) -> tuple[Tensor, Tensor]:
        """Return the scale and the offset of each patch, float32 [N, P, 1] each."""
        count = len(self.codes)
        return _by_patch(self.scales, self.groups, count), _by_patch(self.offsets, self.groups, count)

    def columns(self) -> dict[str, np.ndarray]:
        """Return what a file stores of it, by name: codes are packed, the first in the lowest bits."""
        packed = _packed(self.codes.flatten(1).numpy(), self.bits)
        columns = {"codes": packed, "scales": self.scales.numpy(), "offsets": self.offsets.numpy()}
        if self.groups is not None:
            columns["groups"] = self.groups.numpy().astype(np.min_scalar_type(max(1, len(self.scales) - 1)))
        return columns

    def about(self) -> dict[str, int]:
        """Return the attributes with which `from_columns` reads the columns."""
        channels, height, width = self.shape
        return {
            "bits": self.bits,
            "patch": self.patch,
            "channels": channels,
            "height": height,
            "width": width,
        }

    @classmethod
    def from_columns(cls, columns: Mapping[str, Tensor], about: Mapping[str, int]) -> CodedPixels:
        """Read what `columns` and `about` return.

        Raises:
            ValueError: they do not fit one another. KeyError: one is missing.
        """
        bits, patch = int(about["bits"]), int(about["patch"])
        shape = (int(about["channels"]), int(about["height"]), int(about["width"]))
        if not 1 <= bits <= 8 or patch < 0 or min(shape) < 1 or patch > min(shape[1:]):
            raise ValueError("bits, patch or size of the pixels make no sense")
        packed = columns["codes"]
        patches, pixels = _patch_shape(shape, patch)
        if packed.dtype != torch.uint8 or packed.shape[1:] != (-(-patches * pixels * bits // 8),):
            raise ValueError("the codes are of images of another size")
        codes = torch.from_numpy(_unpacked(packed.numpy(), patches * pixels, bits))
        groups = columns.get("groups")
        return cls(
            codes=codes.view(len(packed), patches, pixels),
            scales=columns["scales"].half(),
            offsets=columns["offsets"].half(),
            groups=None if groups is None else groups.long(),
            bits=bits,
            patch=patch,
            shape=shape,
        )

    def __getitem__(self, rows: Tensor) -> CodedPixels:
        """Return the coded pixels of some images, by their positions."""
        if self.groups is not None:
            used, groups = self.groups[rows].unique(return_inverse=True)
            scales, offsets = self.scales[used], self.offsets[used]
            return dataclasses.replace(
                self, codes=self.codes[rows], groups=groups, scales=scales, offsets=offsets
            )
        own = [each.view(len(self.codes), -1)[rows].flatten() for each in (self.scales, self.offsets)]
        return dataclasses.replace(self, codes=self.codes[rows], scales=own[0], offsets=own[1])

    @property
    def coding(self) -> Coding:
        """How other images would be coded alike."""
        return Coding(self.bits, self.patch, 0 if self.groups is None else len(self.scales))

    @property
    def words(self) -> str:
        """What the coding is, for people."""
        bits = f"{self.bits} bit{'s' if self.bits > 1 else ''}"
        shared = f"{len(self.scales)} scale{'s' if len(self.scales) > 1 else ''}"
        if not self.patch:
            return f"{bits}, scaled by image" if self.groups is None else f"{bits}, {shared}"
        scales = "a scale each" if self.groups is None else shared
        return f"{bits} in patches of {self.patch}×{self.patch}, {scales}"


class Coder:
    """Codes images in patches of one size, with any number of bits and quantisers."""

    def __init__(self, images: Tensor, patch: int) -> None:
        """Divide images into patches.

        Args:
            images: float32 [N, C, H, W], of any range below 65504.
            patch: side of a patch; 0 takes whole images.

        Raises:
            UserError: a patch is larger than an image, or float16 cannot hold a pixel.
        """
        images = images.detach().cpu()
        self._count, self._shape = len(images), (images.shape[1], images.shape[2], images.shape[3])
        check_patch(patch, self._shape)
        if (largest := max(map(abs, (float(end) for end in images.aminmax())))) > LARGEST:
            raise UserError(f"coded pixels cannot hold a value of {largest:.3g}; store the set as float32")
        self._patch = patch
        self._patches = to_patches(images, patch)
        self._ranges = torch.stack([self._patches.amin(2).flatten(), self._patches.amax(2).flatten()], 1)
        self._grouped: dict[int, Tensor] = {}

    @property
    def patches(self) -> int:
        """Patches of all images."""
        return len(self._ranges)

    def code(self, bits: int, groups: int) -> CodedPixels:
        """Code the images.

        Args:
            bits: of a pixel, 1 to 8.
            groups: quantisers that patches share, where there are more patches than that; 0 gives each its
                own. K-means over the ends of ranges joins them, so that distances are in units of pixels; a
                quantiser covers the ranges of all its patches.

        Raises:
            UserError: the range of a patch is too wide for float16.
        """
        lowest, highest = self._ranges.unbind(1)
        chosen: Tensor | None = None
        if groups and groups < self.patches:
            chosen = self._groups(groups)
            lowest, highest = _joined(lowest, chosen, "amin"), _joined(highest, chosen, "amax")
            chosen = chosen.view(self._count, -1)
        offsets = lowest.half()
        scales = ((highest - offsets.float()) / (2**bits - 1)).clamp(min=0)
        if (widest := float(scales.max())) > LARGEST:
            raise UserError(
                f"pixels of one patch differ by {widest * (2**bits - 1):.3g}, too much for {bits} bits: "
                "take more, or store the set as float32"
            )
        scales = scales.half()
        return CodedPixels(
            codes=_quantised(self._patches, scales, offsets, chosen, bits),
            scales=scales,
            offsets=offsets,
            groups=chosen,
            bits=bits,
            patch=self._patch,
            shape=self._shape,
        )

    def _groups(self, groups: int) -> Tensor:
        """Return the group of each patch, int64, which does not depend on the bits."""
        if groups not in self._grouped:
            self._grouped[groups] = _grouped(self._ranges, groups)
        return self._grouped[groups]


def encode(images: Tensor, coding: Coding) -> CodedPixels:
    """Code images; see `Coder`."""
    return Coder(images, coding.patch).code(coding.bits, coding.groups)


def check_patch(patch: int, shape: tuple[int, int, int]) -> None:
    """Raise a UserError where a patch is larger than an image of C, H, W."""
    height, width = shape[1:]
    if patch > min(height, width):
        raise UserError(f"a patch of {patch}×{patch} is larger than an image of {height}×{width}")


def _grouped(ranges: Tensor, groups: int) -> Tensor:
    """Return the group of each range [n, 2], int64 [n]; every group has a member."""
    distinct, which = ranges.unique(dim=0, return_inverse=True)
    if len(distinct) <= groups:
        return which
    sample = ranges[:: -(-len(ranges) // _CLUSTERED)]
    centres = torch.from_numpy(lloyd(sample.numpy(), groups)).to(ranges)
    nearest = torch.cat([torch.cdist(part, centres).argmin(1) for part in ranges.split(1 << 14)])
    return nearest.unique(return_inverse=True)[1]


def _joined(values: Tensor, groups: Tensor, how: str) -> Tensor:
    """Return the extreme value of each group."""
    extremes = values.new_zeros(int(groups.max()) + 1)
    return extremes.scatter_reduce_(0, groups, values, how, include_self=False)


def _quantised(patches: Tensor, scales: Tensor, offsets: Tensor, groups: Tensor | None, bits: int) -> Tensor:
    """Return the nearest code of each pixel, uint8."""
    scale, offset = (_by_patch(each, groups, len(patches)) for each in (scales, offsets))
    levels = (patches - offset).div_(torch.where(scale > 0, scale, 1.0))
    return levels.round_().clamp_(0, 2**bits - 1).to(torch.uint8)


def _packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Return codes, uint8 [N, n], without the bits that none of them needs, uint8 [N, ⌈n · bits / 8⌉]."""
    if bits == 8:
        return codes

    def pack(some: np.ndarray) -> np.ndarray:
        each = np.unpackbits(some[:, :, None], axis=2, count=bits, bitorder="little")
        return np.packbits(each.reshape(len(some), -1), axis=1, bitorder="little")

    return np.concatenate([pack(some) for some in _blocks(codes)])


def _unpacked(packed: np.ndarray, count: int, bits: int) -> np.ndarray:
    """Return the ``count`` codes of each row that `_packed` has packed."""
    if bits == 8:
        return packed

    def unpack(some: np.ndarray) -> np.ndarray:
        flat = np.unpackbits(some, axis=1, count=count * bits, bitorder="little")
        return np.packbits(flat.reshape(len(some), -1, bits), axis=2, bitorder="little")[:, :, 0]

    return np.concatenate([unpack(some) for some in _blocks(packed)])


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield rows some at a time: each byte of them takes eight on the way."""
    at_once = max(1, _BYTES_AT_ONCE // max(1, rows.shape[1]))
    for start in range(0, len(rows), at_once):
        yield rows[start : start + at_once]


def _by_patch(values: Tensor, groups: Tensor | None, images: int) -> Tensor:
    """Return the value of each patch, float32 [N, P, 1], from those of the quantisers [G]."""
    values = values.float()
    return values.view(images, -1, 1) if groups is None else values[groups][:, :, None]


def _patch_shape(shape: tuple[int, int, int], patch: int) -> tuple[int, int]:
    """Return the patches of an image and the pixels of a patch."""
    channels, height, width = shape
    if not patch:
        return 1, channels * height * width
    return channels * -(-height // patch) * -(-width // patch), patch**2


def to_patches(images: Tensor, patch: int) -> Tensor:
    """Divide images [N, C, H, W] into patches [N, P, n], as `CodedPixels` has them; borders are repeated."""
    if not patch:
        return images.flatten(1)[:, None]
    height, width = images.shape[2:]
    padded = F.pad(images, (0, -width % patch, 0, -height % patch), mode="replicate")
    cells = padded.unfold(2, patch, patch).unfold(3, patch, patch)
    return cells.flatten(4).flatten(1, 3)


def from_patches(patches: Tensor, shape: tuple[int, int, int], patch: int) -> Tensor:
    """Join patches [N, P, n] into images [N, C, H, W]."""
    channels, height, width = shape
    if not patch:
        return patches.reshape(-1, *shape)
    rows, columns = -(-height // patch), -(-width // patch)
    cells = patches.view(-1, channels, rows, columns, patch, patch)
    whole = cells.transpose(3, 4).reshape(-1, channels, rows * patch, columns * patch)
    return whole[:, :, :height, :width].contiguous()
