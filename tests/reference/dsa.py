"""Differentiable siamese augmentation of one image at a time, spelled out with Python loops."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Row:
    """The parameters of one image as plain numbers; ``operators`` are those to apply."""

    operators: set[str]
    mirrored: bool
    brightness: float
    saturation: float
    contrast: float
    shift: tuple[int, int]
    centre: tuple[int, int]
    scale: tuple[float, float]
    angle: float


def augment(image: Tensor, row: Row, align_corners: bool) -> Tensor:
    """One image [C, H, W]: flip, colour, one spatial operator, cutout; each only if named in the row."""
    if "flip" in row.operators and row.mirrored:
        image = flip(image)
    if "color" in row.operators:
        image = color(image, row.brightness, row.saturation, row.contrast)
    if "crop" in row.operators:
        image = crop(image, *row.shift)
    if "scale" in row.operators:
        image = warp(image, [[row.scale[0], 0.0], [0.0, row.scale[1]]], align_corners)
    if "rotate" in row.operators:
        cos, sin = math.cos(row.angle), math.sin(row.angle)
        image = warp(image, [[cos, -sin], [sin, cos]], align_corners)
    if "cutout" in row.operators:
        image = cutout(image, *row.centre)
    return image


def flip(image: Tensor) -> Tensor:
    width = image.shape[-1]
    return torch.stack([image[:, :, width - 1 - j] for j in range(width)], dim=-1)


def color(image: Tensor, brightness: float, saturation: float, contrast: float) -> Tensor:
    channels, height, width = image.shape
    image = image + brightness
    grey = sum(image[c] for c in range(channels)) / channels
    image = torch.stack([grey + (image[c] - grey) * saturation for c in range(channels)])
    mean = image.sum() / (channels * height * width)
    return mean + (image - mean) * contrast


def crop(image: Tensor, down: int, right: int) -> Tensor:
    out = torch.zeros_like(image)
    _, height, width = image.shape
    for i in range(height):
        for j in range(width):
            if 0 <= i + down < height and 0 <= j + right < width:
                out[:, i, j] = image[:, i + down, j + right]
    return out


def cutout(image: Tensor, row: int, column: int) -> Tensor:
    _, height, width = image.shape
    tall, wide = math.floor(0.5 * height + 0.5), math.floor(0.5 * width + 0.5)
    keep = torch.ones(height, width, dtype=image.dtype)
    for i in range(row - tall // 2, row - tall // 2 + tall):
        for j in range(column - wide // 2, column - wide // 2 + wide):
            if 0 <= i < height and 0 <= j < width:
                keep[i, j] = 0
    return image * keep


def warp(image: Tensor, matrix: list[list[float]], align_corners: bool) -> Tensor:
    """Bilinear sampling as one matrix of weights from source pixels to target pixels."""
    channels, height, width = image.shape
    weights = torch.zeros(height * width, height * width, dtype=image.dtype)
    for i in range(height):
        for j in range(width):
            y, x = normalised(i, height, align_corners), normalised(j, width, align_corners)
            source_x = pixel(matrix[0][0] * x + matrix[0][1] * y, width, align_corners)
            source_y = pixel(matrix[1][0] * x + matrix[1][1] * y, height, align_corners)
            for p in (math.floor(source_y), math.floor(source_y) + 1):
                for q in (math.floor(source_x), math.floor(source_x) + 1):
                    if 0 <= p < height and 0 <= q < width:
                        weight = (1 - abs(source_y - p)) * (1 - abs(source_x - q))
                        weights[i * width + j, p * width + q] += weight
    return (image.reshape(channels, -1) @ weights.T).reshape(image.shape)


def normalised(index: int, size: int, align_corners: bool) -> float:
    """Where a pixel's centre lies in [-1, 1]."""
    return 2 * index / (size - 1) - 1 if align_corners else (2 * index + 1) / size - 1


def pixel(coordinate: float, size: int, align_corners: bool) -> float:
    """The inverse of `normalised`, at any real position."""
    if align_corners:
        return (coordinate + 1) / 2 * (size - 1)
    return ((coordinate + 1) * size - 1) / 2
