"""The operators of differentiable siamese augmentation (Zhao & Bilen 2021, arXiv 2102.08259), batched.

Every function takes images [n, C, H, W] (any float dtype) and one row of parameters per image on the same
device, returns a new tensor of the same shape and dtype, and is linear or affine in the pixels, so that a
gradient reaches them. Nothing here is random.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def flip(images: Tensor) -> Tensor:
    """Mirror left and right."""
    return images.flip(-1)


def color(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Shift the brightness, then scale around each pixel's grey value, then around the image's mean.

    Args:
        brightness: [n] added to every value.
        saturation: [n] factors on the distance from the mean over channels; no effect with one channel.
        contrast: [n] factors on the distance from the mean over channels, rows and columns.
    """
    x = images.to(_precise(images.dtype))
    x = x + _per_image(brightness, x)
    x = _around(x.mean(1, keepdim=True), x, saturation)
    x = _around(x.mean((1, 2, 3), keepdim=True), x, contrast)
    return x.to(images.dtype)


def crop(images: Tensor, shift: Tensor) -> Tensor:
    """Translate by whole pixels: ``out[i, j] = in[i + shift[0], j + shift[1]]``, zero where that is outside.

    Args:
        shift: int64 [n, 2], rows and columns.
    """
    count, channels, height, width = images.shape
    # With a border of one zero pixel every index outside can be clamped onto the border.
    bordered = F.pad(images, (1, 1, 1, 1)).flatten(2)
    rows = (shift[:, :1] + torch.arange(height, device=shift.device)).clamp(-1, height) + 1
    columns = (shift[:, 1:] + torch.arange(width, device=shift.device)).clamp(-1, width) + 1
    source = rows[:, :, None] * (width + 2) + columns[:, None, :]
    return bordered.gather(2, source.view(count, 1, -1).expand(-1, channels, -1)).view(images.shape)


def cutout(images: Tensor, centre: Tensor, length: int) -> Tensor:
    """Zero a square box of ``length`` pixels, clipped to the image.

    Args:
        centre: int64 [n, 2], row and column; the box starts ``length // 2`` before it.
    """
    height, width = images.shape[-2:]
    start = centre - length // 2
    rows = _within(height, start[:, 0], length)
    columns = _within(width, start[:, 1], length)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def scaling(scale: Tensor) -> Tensor:
    """Matrices diag(sx, sy) [n, 2, 2] from ``scale`` [n, 2]; above 1 the content shrinks (see `warp`)."""
    return torch.diag_embed(scale)


def rotation(angle: Tensor) -> Tensor:
    """Matrices [[cos φ, -sin φ], [sin φ, cos φ]] [n, 2, 2] from ``angle`` [n] in radians."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], -1).view(-1, 2, 2)


def warp(images: Tensor, matrix: Tensor, align_corners: bool) -> Tensor:
    """Sample bilinearly at ``matrix @ (x, y)``, zero outside.

    Args:
        matrix: [n, 2, 2], acting on normalised sampling coordinates: x along the width, y along the height.
        align_corners: whether -1 and 1 are the centres of the outermost pixels (True) or their outer edges;
            published code differs, see `dsdistill.augment.dsa.Augmentation`.
    """
    x = images.to(_precise(images.dtype))
    grid = F.affine_grid(F.pad(matrix.to(x.dtype), (0, 1)), list(x.shape), align_corners=align_corners)
    sampled = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=align_corners)
    return sampled.to(images.dtype)


def _precise(dtype: torch.dtype) -> torch.dtype:
    """At least float32: eight bits of mantissa cannot address a pixel, nor carry three colour stages."""
    return torch.promote_types(dtype, torch.float32)


def _per_image(scalars: Tensor, images: Tensor) -> Tensor:
    return scalars.to(images.dtype).view(-1, 1, 1, 1)


def _around(mean: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return mean + (images - mean) * _per_image(factor, images)


def _within(size: int, start: Tensor, length: int) -> Tensor:
    """Boolean [n, size]: which positions lie in [start, start + length)."""
    offset = torch.arange(size, device=start.device) - start[:, None]
    return (offset >= 0) & (offset < length)
