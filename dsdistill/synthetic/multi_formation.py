"""Multi-formation: a stored image is decoded into several training images.

After Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization" (IDC, 2022). Everything
here works in unit pixel space and within one class: leading dimensions are classes, or absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn.functional import interpolate, pad

from dsdistill.config.validation import forbid_extra
from dsdistill.errors import UserError

Mode = Literal["single", "multi", "bound"]


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class MultiFormation:
    """How a stored image becomes training images: cut into factor × factor tiles, enlarged to its size."""

    factor: Annotated[int, Ge(1)] = 1
    """Tiles along a side; 1 leaves images as they are stored."""
    mode: Mode = "single"
    """single: every image at the factor; multi: every image at factors 1, 2, … and the factor;
    bound: as many images as fit the bound at the factor, the others at lower ones."""
    bound: Annotated[int, Ge(1)] = 128
    """Training images of a class in mode "bound"; more only if more are stored."""

    @property
    def is_identity(self) -> bool:
        """Whether every stored image is one training image."""
        return self.factor == 1

    def decoded_count(self, ipc: int) -> int:
        """Return the number of training images that ``ipc`` stored images of a class decode into."""
        return sum(factor**2 * len(rows) for factor, rows in self.parts(ipc))

    def origins(self, ipc: int) -> Tensor:
        """Return the stored image of the class that each training image comes from, int64 [decoded]."""
        parts = self.parts(ipc)
        return torch.cat([torch.arange(rows.start, rows.stop).repeat(factor**2) for factor, rows in parts])

    def parts(self, ipc: int) -> list[tuple[int, range]]:
        """Return each factor with the stored images of a class that are decoded at it, in decoding order."""
        if self.mode == "single":
            return [(self.factor, range(ipc))]
        if self.mode == "multi":
            return [(factor, range(ipc)) for factor in range(1, self.factor + 1)]
        parts = []
        first = decoded = 0
        for factor in range(self.factor, 0, -1):
            left = ipc - first
            room = max(0, self.bound - decoded - left)  # the rest must still fit at factor 1
            count = min(room // factor**2, left) if factor > 1 else left
            if count:
                parts.append((factor, range(first, first + count)))
            first += count
            decoded += factor**2 * count
        return parts

    def check(self, size: int) -> None:
        """Check the fields, and that no tile of an image of ``size`` pixels a side is empty.

        Raises:
            UserError: a field is out of range, or the factor is too large (every factor above ``size`` is).
        """
        if self.factor < 1 or self.bound < 1 or self.mode not in get_args(Mode):
            raise UserError(
                f"no multi-formation has factor {self.factor}, mode {self.mode!r} and bound {self.bound}: "
                f"numbers are at least 1, modes are {', '.join(get_args(Mode))}"
            )
        factors = [self.factor] if self.mode == "single" else range(1, self.factor + 1)
        if any((factor - 1) * -(-size // factor) >= size for factor in factors):
            raise UserError(
                f"multi-formation at factor {self.factor} leaves nothing in some tiles of an image {size} "
                "pixels a side; choose a smaller factor"
            )


IDENTITY = MultiFormation()
"""Every stored image is one training image."""


def decode(images: Tensor, multi_formation: MultiFormation, fill: float = 0.5) -> Tensor:
    """Turn the stored images of each class into training images; linear except for the fill.

    At factor q an image whose sides q does not divide is first padded at the right and the bottom; its
    q × q tiles are enlarged bilinearly to its size. The order is tile by tile: the first tile of every image,
    then the second (to the right of the first) of every image, and so on.

    Args:
        images: float [..., n, C, H, W] in unit space, n of one class.
        multi_formation: one that ``MultiFormation.check`` accepts.
        fill: the value of padding.

    Returns:
        [..., decoded, C, H, W]; the input itself if the multi-formation is the identity.
    """
    if multi_formation.is_identity:
        return images
    parts = multi_formation.parts(images.shape[-4])
    return torch.cat(
        [_enlarged(images[..., rows.start : rows.stop, :, :, :], q, fill) for q, rows in parts], -4
    )


def decode_classes(images: Tensor, counts: Sequence[int], multi_formation: MultiFormation) -> Tensor:
    """`decode` the stored images of several classes, at once where they have equally many.

    Args:
        images: float [N, C, H, W] in unit space, class by class.
        counts: images of each class, N in all.

    Returns:
        [decoded, C, H, W], class by class.
    """
    if multi_formation.is_identity:
        return images
    if len(set(counts)) == 1:
        return decode(images.unflatten(0, (len(counts), -1)), multi_formation).flatten(0, 1)
    return torch.cat([decode(part, multi_formation) for part in images.split(list(counts))])


def _enlarged(images: Tensor, factor: int, fill: float) -> Tensor:
    """Enlarge the tiles of images [..., n, C, H, W] to [..., factor² · n, C, H, W]."""
    if factor == 1:
        return images
    *classes, n, _, height, width = images.shape
    padded = pad(images, (0, -width % factor, 0, -height % factor), value=fill)
    tiles = padded.unflatten(-1, (factor, -1)).unflatten(-3, (factor, -1))  # [..., n, C, row, h, column, w]
    tiles = tiles.movedim((-4, -2), (-6, -5)).flatten(0, -4)
    enlarged = interpolate(tiles, (height, width), mode="bilinear", align_corners=False)
    return enlarged.unflatten(0, (*classes, factor**2 * n))


def mosaic(images: Tensor, factor: int) -> Tensor:
    """Shrink images and tile them: the start of a multi-formation at that factor ("mix").

    Tile k, counted along rows, of the n mosaics holds images k·n to (k+1)·n. Where the factor does not divide
    a side, the first tiles are a pixel longer than the others, as in IDC's code; `decode` cuts tiles of equal
    size there, which hold an edge of their neighbours.

    Args:
        images: float [n · factor², C, H, W].

    Returns:
        [n, C, H, W], each image sampled at its nearest pixels.
    """
    blocks = images.unflatten(0, (factor**2, -1))
    canvas = torch.empty_like(blocks[0])
    bands = [band.tensor_split(factor, -1) for band in canvas.tensor_split(factor, -2)]
    for block, tile in zip(blocks, (tile for band in bands for tile in band), strict=True):
        tile.copy_(interpolate(block, tile.shape[-2:], mode="nearest"))
    return canvas


def stitched(cells: Tensor, factor: int) -> Tensor:
    """Put cells of equal size side by side, in the order in which `mosaic` fills its tiles.

    Args:
        cells: float [n · factor², C, h, w]; place k, counted along rows, of the n results holds cells k·n to
            (k+1)·n.

    Returns:
        [n, C, factor · h, factor · w].

    >>> stitched(torch.arange(8.0).view(8, 1, 1, 1), factor=2)[1, 0]
    tensor([[1., 3.],
            [5., 7.]])
    """
    grid = cells.unflatten(0, (factor, factor, -1))  # [row, column, n, C, h, w]
    return grid.permute(2, 3, 0, 4, 1, 5).flatten(4).flatten(2, 3).contiguous()
