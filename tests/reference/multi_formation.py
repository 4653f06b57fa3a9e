"""Decoding of multi-formation images, tile by tile and pixel by pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bilinear(tile: Tensor, height: int, width: int) -> Tensor:
    """Enlarge a tile [C,h,w] pixel by pixel: pixel centres on pixel centres, edges repeated."""
    result = tile.new_empty(len(tile), height, width)
    for y in range(height):
        for x in range(width):
            ends = []
            for place, of, to in ((y, tile.shape[1], height), (x, tile.shape[2], width)):
                source = max((place + 0.5) * of / to - 0.5, 0)
                low = min(int(source), of - 1)
                ends.append((low, min(low + 1, of - 1), source - low))
            (top, bottom, down), (left, right, across) = ends
            upper = tile[:, top, left] * (1 - across) + tile[:, top, right] * across
            lower = tile[:, bottom, left] * (1 - across) + tile[:, bottom, right] * across
            result[:, y, x] = upper * (1 - down) + lower * down
    return result


def decode(images: Tensor, factor: int) -> Tensor:
    """Decode images [n,C,H,W] of one class at one factor, tile by tile."""
    n, channels, height, width = images.shape
    h, w = math.ceil(height / factor), math.ceil(width / factor)
    padded = images.new_full((n, channels, h * factor, w * factor), 0.5)
    padded[:, :, :height, :width] = images
    tiles = [
        padded[image, :, row * h : (row + 1) * h, column * w : (column + 1) * w]
        for row in range(factor)
        for column in range(factor)
        for image in range(n)
    ]
    return torch.stack([bilinear(tile, height, width) for tile in tiles])
