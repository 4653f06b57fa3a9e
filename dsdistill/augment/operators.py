"""The operators of differentiable siamese augmentation (Zhao & Bilen 2021, arXiv 2102.08259), batched.

Every function takes images [n, C, H, W] (any float dtype) and one row of parameters per image on the same
device. It returns a new tensor of the same shape and dtype. All are linear or affine in the pixels, and
differentiable in them. Nothing here is random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.objectives.precision import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float, Int64, Shaped


def flip(images: Float[Tensor, "n C H W"]) -> Float[Tensor, "n C H W"]:
    """Mirror left and right.

    >>> flip(torch.tensor([[[[1.0, 2.0, 3.0]]]]))
    tensor([[[[3., 2., 1.]]]])
    """
    return images.flip(-1)


def color(
    images: Float[Tensor, "n C H W"],
    brightness: Float[Tensor, " n"],
    saturation: Float[Tensor, " n"],
    contrast: Float[Tensor, " n"],
) -> Float[Tensor, "n C H W"]:
    """Shift the brightness, then scale around each pixel's grey value, then around the image's mean.

    Args:
        brightness: [n] added to every value.
        saturation: [n] factors on the distance from the mean over channels; no effect with one channel.
        contrast: [n] factors on the distance from the mean over channels, rows and columns.

    >>> color(torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([0.5]), torch.tensor([1.0]), torch.tensor([2.0]))
    tensor([[[[0., 2.]]]])
    """
    x = at_least_float32(images)  # eight bits of mantissa are too few for three stages
    x = x + _per_image(brightness, x)
    x = _around(x.mean(1, keepdim=True), x, saturation)
    x = _around(x.mean((1, 2, 3), keepdim=True), x, contrast)
    return x.to(images.dtype)


def crop(images: Float[Tensor, "n C H W"], shift: Int64[Tensor, "n 2"]) -> Float[Tensor, "n C H W"]:
    """Translate by whole pixels: ``out[i, j] = in[i + shift[0], j + shift[1]]``, zero where that is outside.

    Args:
        shift: int64 [n, 2], rows and columns.

    >>> crop(torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[0, 1]]))
    tensor([[[[2., 3., 0.]]]])
    """
    count, channels, height, width = images.shape
    # A border of one zero pixel serves every index outside the image, clamped onto it.
    bordered = F.pad(images, (1, 1, 1, 1)).flatten(2)
    rows = (shift[:, :1] + torch.arange(height, device=shift.device)).clamp(-1, height) + 1
    columns = (shift[:, 1:] + torch.arange(width, device=shift.device)).clamp(-1, width) + 1
    source = rows[:, :, None] * (width + 2) + columns[:, None, :]
    return bordered.gather(2, source.view(count, 1, -1).expand(-1, channels, -1)).view(images.shape)


def cutout(
    images: Float[Tensor, "n C H W"], centre: Int64[Tensor, "n 2"], length: int
) -> Float[Tensor, "n C H W"]:
    """Zero a square box of ``length`` pixels, clipped to the image.

    Args:
        centre: int64 [n, 2], row and column; the box starts ``length // 2`` before it.

    >>> cutout(torch.ones(1, 1, 1, 4), torch.tensor([[0, 1]]), length=2)
    tensor([[[[0., 0., 1., 1.]]]])
    """
    height, width = images.shape[-2:]
    start = centre - length // 2
    rows = _within(height, start[:, 0], length)
    columns = _within(width, start[:, 1], length)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def scaling(scale: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2 2"]:
    """Matrices diag(sx, sy) [n, 2, 2] from ``scale`` [n, 2]; above 1 the content shrinks (see `warp`).

    >>> scaling(torch.tensor([[1.0, 2.0]]))
    tensor([[[1., 0.],
             [0., 2.]]])
    """
    return torch.diag_embed(scale)


def rotation(angle: Float[Tensor, " n"]) -> Float[Tensor, "n 2 2"]:
    """Matrices [[cos φ, -sin φ], [sin φ, cos φ]] [n, 2, 2] from ``angle`` [n] in radians.

    >>> rotation(torch.tensor([0.0]))
    tensor([[[1., -0.],
             [0., 1.]]])
    """
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], -1).view(-1, 2, 2)


def warp(
    images: Float[Tensor, "n C H W"], matrix: Float[Tensor, "n 2 2"], align_corners: bool
) -> Float[Tensor, "n C H W"]:
    """Sample bilinearly at ``matrix @ (x, y)``, zero outside.

    Args:
        matrix: [n, 2, 2], acting on normalised sampling coordinates: x along the width, y along the height.
        align_corners: whether -1 and 1 are the centres of the outermost pixels (True) or their outer edges;
            published code differs, see `dsdistill.augment.dsa.Augmentation`.

    >>> warp(torch.tensor([[[[1.0, 2.0, 3.0]]]]), -torch.eye(2)[None], align_corners=False)  # by 180 degrees
    tensor([[[[3., 2., 1.]]]])
    """
    x = at_least_float32(images)  # eight bits of mantissa cannot address a pixel
    grid = F.affine_grid(F.pad(matrix.to(x.dtype), (0, 1)), list(x.shape), align_corners=align_corners)
    sampled = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=align_corners)
    return sampled.to(images.dtype)


def to_device_of(
    images: Shaped[Tensor, "*_"], parameters: Shaped[Tensor, "*shape"]
) -> Shaped[Tensor, "*shape"]:
    """Move a small tensor of parameters to the device of the images, without waiting for it.

    >>> to_device_of(torch.zeros(1, 1, 2, 2), torch.tensor([1.5]))
    tensor([1.5000])
    """
    return parameters.to(images.device, non_blocking=images.is_cuda)


def _per_image(scalars: Tensor, images: Tensor) -> Tensor:
    return scalars.to(images.dtype).view(-1, 1, 1, 1)


def _around(mean: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return mean + (images - mean) * _per_image(factor, images)


def _within(size: int, start: Tensor, length: int) -> Tensor:
    """Boolean [n, size]: which positions lie in [start, start + length)."""
    offset = torch.arange(size, device=start.device) - start[:, None]
    return (offset >= 0) & (offset < length)
