"""Where kornia's functions are the papers' operators, and where they are not."""

from __future__ import annotations

import pytest
import torch
from kornia import enhance
from kornia.geometry import transform

from dsdistill.augment import operators as ops

ONE = torch.ones(3, dtype=torch.float64)
FACTORS = torch.tensor([0.4, 0.8, 1.3], dtype=torch.float64)


def pictures(channels: int = 3) -> torch.Tensor:
    """Return float64 images [3, C, 9, 9] between 0.3 and 0.7, which a factor of 1.3 leaves inside [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    return 0.3 + 0.4 * torch.rand(3, channels, 9, 9, generator=generator, dtype=torch.float64)


def test_flips_and_shifts_of_the_brightness_are_the_same() -> None:
    images, shift = pictures(), FACTORS - 0.9
    assert torch.equal(ops.flip(images), transform.hflip(images))
    ours = ops.color(images, shift, ONE, ONE)
    torch.testing.assert_close(ours, enhance.adjust_brightness(images, shift, clip_output=False))


def test_crops_are_translations() -> None:
    """Kornia's are sampled, and exact up to rounding; ours are copied."""
    shift = torch.tensor([[2, -1], [0, 3], [-4, 0]])
    theirs = transform.translate(pictures(), -shift.flip(1).double())
    torch.testing.assert_close(ops.crop(pictures(), shift), theirs)


@pytest.mark.parametrize("align_corners", [False, True])
def test_scaling_and_rotation_are_the_same_in_both_conventions(align_corners: bool) -> None:
    """Ours take sampling coordinates, so that a factor above 1 shrinks what is seen."""
    scale, angle = torch.stack([FACTORS, FACTORS.flip(0)], 1), FACTORS / 5
    theirs = transform.scale(pictures(), 1 / scale, align_corners=align_corners)
    torch.testing.assert_close(ops.warp(pictures(), ops.scaling(scale), align_corners), theirs)
    theirs = transform.rotate(pictures(), angle.rad2deg(), align_corners=align_corners)
    torch.testing.assert_close(ops.warp(pictures(), ops.rotation(angle), align_corners), theirs)


def test_contrast_is_the_same_in_grey_only_and_saturation_nowhere() -> None:
    """Kornia weighs the channels by how bright they look; the papers take their mean."""
    contrast = [ops.color(pictures(n), 0 * ONE, ONE, FACTORS) for n in (1, 3)]
    theirs = [enhance.adjust_contrast_with_mean_subtraction(pictures(n), FACTORS) for n in (1, 3)]
    torch.testing.assert_close(contrast[0], theirs[0])
    assert (contrast[1] - theirs[1]).abs().max() > 1e-4
    saturation = ops.color(pictures(), 0 * ONE, FACTORS, ONE)
    assert (saturation - enhance.adjust_saturation(pictures(), FACTORS)).abs().max() > 0.01
    grey = enhance.adjust_saturation_with_gray_subtraction(pictures(), FACTORS)
    assert (saturation - grey).abs().max() > 0.01


def test_kornia_clips_what_standardised_images_hold() -> None:
    images = torch.tensor([-1.5, 0.5, 2.0], dtype=torch.float64).view(1, 1, 1, 3)
    factor = torch.ones(1, dtype=torch.float64)
    assert torch.equal(ops.color(images, 0 * factor, factor, factor), images)
    clipped = enhance.adjust_contrast_with_mean_subtraction(images, factor)
    assert clipped.flatten().tolist() == [0.0, 0.5, 1.0]
