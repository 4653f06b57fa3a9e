"""Random resized crops (Szegedy et al. 2015): draw boxes once, then apply them to any batch.

    crops = RandomResizedCrop(scale=(0.08, 1.0)).draw(len(images), size, generator)
    views = crops(images)

A crop is never larger than the image, so resizing it only enlarges: results do not depend on antialiasing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.augment.operators import to_device_of
from dsdistill.errors import UserError
from dsdistill.objectives.precision import working_dtype

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

_TRIES = 10  # of drawing a box that fits, as torchvision has it


@dataclass(frozen=True, kw_only=True, eq=False)
class Crops:
    """For each of n square images, the box that is enlarged to the whole image; on the CPU.

    Attributes:
        size: height and width of the images, in pixels.
        boxes: int64 [n, 4]: top, left, height and width in pixels, inside the image.
    """

    size: int
    boxes: Int64[Tensor, "n 4"]

    def __len__(self) -> int:
        return len(self.boxes)

    @staticmethod
    def cat(parts: Sequence[Crops]) -> Crops:
        """Join the crops of several batches of images of one size."""
        return Crops(size=parts[0].size, boxes=torch.cat([part.boxes for part in parts]))

    def in_cells(self, cells: Int64[Tensor, " n"], grid: int) -> Crops:
        """Return the same crops of one cell each of larger images, which are grids of such cells.

        >>> whole = Crops(size=4, boxes=torch.tensor([[0, 0, 4, 4], [1, 0, 2, 3]]))
        >>> whole.in_cells(torch.tensor([1, 2]), grid=2).boxes.tolist()
        [[0, 4, 4, 4], [5, 0, 2, 3]]

        Args:
            cells: int64 [n], counted along the rows.
            grid: cells of a row, and of a column.
        """
        corners = torch.stack([cells // grid, cells % grid], 1) * self.size
        return Crops(size=self.size * grid, boxes=self.boxes + F.pad(corners, (0, 2)))

    def __call__(self, images: Float[Tensor, "n C H W"]) -> Float[Tensor, "n C H W"]:
        """Enlarge the boxes to whole images, bilinearly (``align_corners=False``); differentiable.

        Args:
            images: [n, C, H, W] of any float dtype, on any device; not changed.

        Raises:
            UserError: the images are not those the crops were drawn for.
        """
        size = self.size
        if len(self) != len(images) or images.shape[-2:] != (size, size):
            raise UserError(
                f"{len(self)} crops of images of {size}×{size} do not fit a batch of shape "
                f"{list(images.shape)}; draw them for its length and size"
            )
        top, left, height, width = self.boxes.unbind(1)
        dtype = working_dtype(images.dtype)
        rows, columns = (
            to_device_of(images, interpolation(*edge, size).to(dtype))
            for edge in ((top, height), (left, width))
        )
        with torch.autocast(images.device.type, enabled=False):
            enlarged = rows[:, None] @ images.to(dtype) @ columns[:, None].transpose(2, 3)
        return enlarged.to(images.dtype)


def interpolation(
    first: Int64[Tensor, " n"], length: Int64[Tensor, " n"], size: int
) -> Float[Tensor, "n size size"]:
    """Return matrices [n, size, size] which enlarge ``length`` pixels from ``first`` on to ``size``;
    float64."""
    length = length[:, None].double()
    centre = ((torch.arange(size, dtype=torch.float64) + 0.5) * (length / size) - 0.5).clamp(min=0)
    lower = centre.floor()
    upper = (lower + 1).minimum(length - 1)
    share = (centre - lower).clamp(0, 1)
    matrix = torch.zeros(len(length), size, size, dtype=torch.float64)
    first = first[:, None].double()
    matrix.scatter_add_(2, (first + lower).long()[..., None], (1 - share)[..., None])
    return matrix.scatter_add_(2, (first + upper).long()[..., None], share[..., None])


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """Boxes at uniform places, whose area is a uniform share of the image and whose aspect ratio log-uniform.

    Equal in distribution to torchvision's ``RandomResizedCrop.get_params``: of ten draws the first that fits
    is taken, and the whole image where none fits.

    >>> quarters = RandomResizedCrop(scale=(0.25, 0.25), ratio=(1.0, 1.0))
    >>> crops = quarters.draw(2, 8, torch.Generator().manual_seed(0))
    >>> crops.boxes[:, 2:].tolist()
    [[4, 4], [4, 4]]

    Raises:
        UserError: a range is empty or not positive, or a share is above 1.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"shares of a crop lie between 0 and 1, smaller first, not {list(self.scale)}")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise UserError(f"aspect ratios of a crop are positive, smaller first, not {list(self.ratio)}")

    def draw(self, count: int, size: int, generator: torch.Generator) -> Crops:
        """Draw boxes for ``count`` images of ``size`` × ``size``.

        Args:
            generator: on the CPU.
        """
        u = torch.rand(count, 4, _TRIES, generator=generator, dtype=torch.float64)
        area = size**2 * (self.scale[0] + u[:, 0] * (self.scale[1] - self.scale[0]))
        low, high = (math.log(each) for each in self.ratio)
        aspect = (low + u[:, 1] * (high - low)).exp()
        width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        fits = (width >= 1) & (height >= 1) & (width <= size) & (height <= size)
        pick = fits.long().argmax(1, keepdim=True)  # the first that fits
        height, width, down, across = (
            each.gather(1, pick)[:, 0] for each in (height, width, u[:, 2], u[:, 3])
        )
        none = ~fits.any(1)
        height, width = (torch.where(none, float(size), each) for each in (height, width))
        top, left = ((size - height + 1) * down).floor(), ((size - width + 1) * across).floor()
        return Crops(size=size, boxes=torch.stack([top, left, height, width], 1).long())
