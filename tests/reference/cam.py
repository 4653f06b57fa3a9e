"""Class activation maps by loops over images, channels and places."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def looped_activation(maps: Tensor, weights: Tensor, size: int) -> Tensor:
    """Return relu(Σ_k w_k A_k) of maps [B, k, h, h], scaled by minimum and maximum, enlarged bilinearly."""
    images, channels, side, _ = maps.shape
    enlarged = torch.zeros(images, size, size, dtype=maps.dtype)
    for image in range(images):
        values = [
            [
                max(0.0, sum(float(weights[image, k] * maps[image, k, i, j]) for k in range(channels)))
                for j in range(side)
            ]
            for i in range(side)
        ]
        least, most = min(map(min, values)), max(map(max, values))
        scaled = [[(value - least) / ((most - least) or 1.0) for value in row] for row in values]
        for i in range(size):
            for j in range(size):
                enlarged[image, i, j] = _between(scaled, _place(i, side, size), _place(j, side, size))
    return enlarged


def _place(pixel: int, side: int, size: int) -> float:
    """Return where the centre of a pixel lies among those of a smaller map."""
    return min(max((pixel + 0.5) * side / size - 0.5, 0.0), side - 1.0)


def _between(values: list[list[float]], row: float, column: float) -> float:
    top, left = math.floor(row), math.floor(column)
    bottom, right = min(top + 1, len(values) - 1), min(left + 1, len(values) - 1)
    down, across = row - top, column - left
    upper = (1 - across) * values[top][left] + across * values[top][right]
    lower = (1 - across) * values[bottom][left] + across * values[bottom][right]
    return (1 - down) * upper + down * lower
