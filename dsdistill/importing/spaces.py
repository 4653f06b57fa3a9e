"""From the pixels of a source to unit space: the space is given, or inferred from the values."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from torch import Tensor

from dsdistill.data.preprocess import Preprocess
from dsdistill.errors import UserError, unknown
from dsdistill.importing.source import Space

SPACES: tuple[Space, ...] = get_args(Space)
WORDS: dict[Space, str] = {"unit": "in unit space", "standardised": "standardised", "zca": "whitened"}
"""What pixels in each space are."""

_WIDE = 0.5
"""How far values may lie outside [0, 1] in unit space and still be plausible: learned pixels exceed it."""
_SHARE = 0.8
"""The share of pixels that must be plausible."""
_SPREAD = 0.5
"""The least deviation of standardised pixels; it is 1 for real images, and about 0.25 for whitened ones."""


def named(space: str) -> Space | None:
    """Return the space of a name, None for "auto".

    Raises:
        UserError: there is no such space.
    """
    if space not in ("auto", *SPACES):
        raise unknown("space", space, ("auto", *SPACES))
    return next((each for each in SPACES if each == space), None)


def to_float(images: Tensor) -> tuple[Tensor, str]:
    """Return pixels as float32, those of 0 to 255 divided by 255; and a sentence if they were.

    Integers of 0 and 1 are black and white.

    Raises:
        UserError: they are not finite, or integers outside 0 to 255.
    """
    low, high = float(images.min()), float(images.max())
    if not images.is_floating_point():
        if low < 0 or high > 255:
            raise UserError(
                f"the images hold integers from {low:g} to {high:g}; save bytes, 0 to 255, or floats"
            )
        return (images.float() / 255, "the pixels are 0 to 255") if high > 1 else (images.float(), "")
    images = images.float()
    if not images.isfinite().all():
        raise UserError("the images hold values that are not finite (NaN or infinity), so the set is damaged")
    if low >= 0 and 2 < high <= 255:
        return images / 255, "the pixels are 0 to 255"
    return images, ""


def infer(images: Tensor, standardise: Preprocess) -> tuple[Space, str]:
    """Tell from their values which space pixels are in, and say so in a sentence.

    Args:
        images: float32 [N,C,H,W].
        standardise: the standardisation that they may have undergone.

    Raises:
        UserError: the values fit no space, or several.
    """
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        return "unit", f"unit space, as the values lie between {low:.3g} and {high:.3g}"
    spread = float(images.std())
    if low < 0 and spread >= _SPREAD and plausible(standardise.inverse(images)):
        return "standardised", f"standardised pixels, as the values reach from {low:.3g} to {high:.3g}"
    raise UserError(
        f"the space of the pixels is unclear, as they reach from {low:.3g} to {high:.3g} with a deviation of "
        f"{spread:.2g}; pass --space {', '.join(SPACES[:-1])} or {SPACES[-1]}"
    )


def plausible(unit: Tensor) -> bool:
    """Whether most pixels are about those of images in unit space."""
    return float(((unit >= -_WIDE) & (unit <= 1 + _WIDE)).float().mean()) >= _SHARE


def doubt(unit: Tensor, space: Space) -> str:
    """Say that pixels which were brought to unit space from another are hardly images, if it is so."""
    if plausible(unit):
        return ""
    sample = unit.flatten()[
        :: max(1, unit.numel() // 100_000)
    ]  # torch.quantile takes no more than 2^24 values
    low, high = (float(sample.quantile(share)) for share in (0.05, 0.95))
    return (
        f"pixels taken as {space} lie mostly between {low:.3g} and {high:.3g}, where black is 0 and white 1"
    )


def to_unit(
    images: Tensor, space: Space, standardise: Preprocess, whiten: Callable[[], Preprocess]
) -> tuple[Tensor, Preprocess | None]:
    """Bring pixels to unit space.

    Args:
        images: float32 [N,C,H,W].
        whiten: called for the whitening that they underwent, if they are whitened.

    Returns:
        images in unit space, and the map by which they had left it, or None.

    Raises:
        UserError: the whitening was made for images of another shape.
    """
    if space == "unit":
        unit, preprocess = images, None
    else:
        preprocess = standardise if space == "standardised" else whiten()
        try:
            unit = preprocess.inverse(images)
        except RuntimeError as error:
            raise UserError(
                f"images of {list(images.shape[1:])} cannot be brought from {space} space, which was made "
                "for another shape"
            ) from error
    return unit.contiguous(), preprocess
