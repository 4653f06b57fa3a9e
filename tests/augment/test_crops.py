"""Random resized crops, against torchvision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import RandomResizedCrop as Theirs
from torchvision.transforms.functional import resized_crop

from dsdistill.augment.crops import Crops, RandomResizedCrop
from dsdistill.errors import UserError
from dsdistill.seeding import forked, generator

SIZE = 11


def pixels(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=generator(0, "crops"), dtype=torch.float64).to(dtype)


def drawn(count: int, size: int = SIZE, seed: int = 0, **options: tuple[float, float]) -> Crops:
    return RandomResizedCrop(**options).draw(count, size, generator(seed, "crops"))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_a_box_is_enlarged_as_torchvision_does(dtype: torch.dtype, error: float) -> None:
    images, crops = pixels(60, dtype), drawn(60)
    for antialias in (False, True):  # which makes no difference where images are only enlarged
        expected = torch.stack(
            [
                resized_crop(image, *box, [SIZE, SIZE], InterpolationMode.BILINEAR, antialias)
                for image, box in zip(images, crops.boxes.tolist(), strict=True)
            ]
        )
        torch.testing.assert_close(crops(images), expected, rtol=0, atol=5 * error)
    assert crops(images).dtype == dtype


def test_the_whole_image_is_left_as_it_is() -> None:
    crops = drawn(5, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert crops.boxes.tolist() == [[0, 0, SIZE, SIZE]] * 5
    assert torch.equal(crops(pixels(5)), pixels(5))


def test_boxes_are_distributed_as_torchvisions() -> None:
    count, size = 4000, 32
    ours = drawn(count, size).boxes.double()
    plain = Theirs(size)
    with forked(0, "theirs"):
        image = torch.empty(1, size, size)
        boxes = [Theirs.get_params(image, list(plain.scale), list(plain.ratio)) for _ in range(count)]
    theirs = torch.tensor(boxes, dtype=torch.float64)
    for ours_, theirs_ in (
        (ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]),
        (ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3]),
        (ours[:, 0] / (size - ours[:, 2] + 1), theirs[:, 0] / (size - theirs[:, 2] + 1)),
        (ours[:, 1] / (size - ours[:, 3] + 1), theirs[:, 1] / (size - theirs[:, 3] + 1)),
    ):
        assert kolmogorov_smirnov(ours_, theirs_) < 1.63 * math.sqrt(2 / count)  # at the level of 1 %


def kolmogorov_smirnov(one: Tensor, other: Tensor) -> float:
    """Return the largest distance between two empirical distribution functions."""
    points = torch.cat([one, other]).unique()
    shares = [torch.searchsorted(each.sort().values, points, right=True) / len(each) for each in (one, other)]
    return float((shares[0] - shares[1]).abs().max())


def test_boxes_lie_in_the_image_and_tiny_images_can_be_cropped() -> None:
    for size in (1, 2, 3, 28):
        top, left, height, width = drawn(500, size).boxes.unbind(1)
        assert (height >= 1).all()
        assert (width >= 1).all()
        assert (top >= 0).all()
        assert (left >= 0).all()
        assert (top + height <= size).all()
        assert (left + width <= size).all()


def test_where_no_box_fits_the_whole_image_is_taken() -> None:
    wide = drawn(20, scale=(0.9, 1.0), ratio=(3.0, 4.0))
    assert wide.boxes.tolist() == [[0, 0, SIZE, SIZE]] * 20


def test_the_gradient_is_that_of_interpolation() -> None:
    crops, images = drawn(2), pixels(2)[:, :1].requires_grad_()
    torch.autograd.gradcheck(crops, images, fast_mode=True)


def test_joined() -> None:
    parts = [drawn(2, seed=1), drawn(3, seed=2)]
    images = pixels(5)
    apart = torch.cat([parts[0](images[:2]), parts[1](images[2:])])
    assert torch.equal(Crops.cat(parts)(images), apart)


def test_half_precision_is_computed_in_float32() -> None:
    crops, images = drawn(4), pixels(4, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = crops(images)
    assert torch.equal(found, crops(images.float()).bfloat16())


def test_bad_input_is_one_sentence() -> None:
    for options, sentence in (
        ({"scale": (0.0, 1.0)}, "shares of a crop lie between 0 and 1"),
        ({"scale": (0.5, 0.2)}, "smaller first"),
        ({"scale": (0.5, 1.5)}, "shares of a crop"),
        ({"ratio": (0.0, 1.0)}, "aspect ratios of a crop are positive"),
        ({"ratio": (1.0, math.inf)}, "aspect ratios"),
    ):
        with pytest.raises(UserError, match=sentence):
            RandomResizedCrop(**options)
    with pytest.raises(UserError, match="3 crops of images of 11×11 do not fit a batch of shape"):
        drawn(3)(pixels(4))
