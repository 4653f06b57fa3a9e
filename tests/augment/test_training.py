"""What happens to a batch in training: the cells of PCA, against cutting them out one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resized_crop

from dsdistill.augment.crops import RandomResizedCrop
from dsdistill.augment.dsa import Augmentation
from dsdistill.augment.training import Transform
from dsdistill.seeding import generator

SIDE = 12
NONE = Augmentation(operators=())


def streams(*numbers: int) -> Callable[[str], Sequence[torch.Generator]]:
    """Return the draws of so many networks side by side."""
    return lambda kind: [generator(0, kind, number) for number in numbers]


def pixels(count: int) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=generator(0, "pixels"), dtype=torch.float64)


@pytest.mark.parametrize("cells", [2, 3])
def test_a_crop_of_one_cell_is_enlarged_to_the_whole(cells: int) -> None:
    """Two networks side by side, each with draws of its own."""
    images, crop, side = pixels(10), RandomResizedCrop(scale=(0.3, 1.0)), SIDE // cells
    expected = []
    for network in (0, 5):
        boxes = crop.draw(5, side, generator(0, "crop", network)).boxes.tolist()
        places = torch.randint(cells**2, (5,), generator=generator(0, "cells", network)).tolist()
        for box, place in zip(boxes, places, strict=True):
            row, column = divmod(place, cells)
            image = images[len(expected)]
            cell = image[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
            expected.append(resized_crop(cell, *box, [SIDE, SIDE], InterpolationMode.BILINEAR, False))
    found = Transform(NONE, crop, cells=cells)(images, streams(0, 5))
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("crop", [None, RandomResizedCrop()])
def test_no_crop_crosses_the_border_of_its_cell(crop: RandomResizedCrop | None) -> None:
    """Each cell has one value, and so has each view; every cell comes up, about equally often."""
    values = torch.arange(1.0, 5.0).view(2, 2).repeat_interleave(SIDE // 2, 0).repeat_interleave(SIDE // 2, 1)
    views = Transform(NONE, crop, cells=2)(values.expand(400, 1, SIDE, SIDE), streams(0))
    assert torch.allclose(views, views[:, :, :1, :1].round().expand_as(views))
    counts = torch.bincount(views[:, 0, 0, 0].round().long(), minlength=5)
    assert counts[0] == 0
    assert (counts[1:] > 70).all()


def test_without_a_crop_a_view_is_a_whole_cell() -> None:
    images = pixels(4)
    places = torch.randint(4, (4,), generator=generator(0, "cells", 0))
    views = Transform(NONE, cells=2)(images, streams(0))
    for image, view, place in zip(images, views, places.tolist(), strict=True):
        row, column = divmod(place, 2)
        cell = image[:, row * 6 : row * 6 + 6, column * 6 : column * 6 + 6]
        enlarged = torch.nn.functional.interpolate(cell[None], SIDE, mode="bilinear")[0]
        torch.testing.assert_close(view, enlarged, rtol=0, atol=1e-12)


def test_one_cell_is_the_whole_image() -> None:
    images, crop = pixels(4), RandomResizedCrop()
    expected = crop.draw(4, SIDE, generator(0, "crop", 0))(images)
    assert torch.equal(Transform(NONE, crop, cells=1)(images, streams(0)), expected)
    assert torch.equal(Transform(NONE)(images, streams(0)), images)
