"""The space of pixels is inferred where their values leave no doubt, and asked for where they do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsdistill.data.constants import CONSTANTS
from dsdistill.data.preprocess import Standardise
from dsdistill.errors import UserError
from dsdistill.importing.spaces import infer, to_unit

CIFAR = Standardise.of(*CONSTANTS["cifar10"])


def photographs(count: int = 8) -> Tensor:
    """Return images of the mean and deviation of CIFAR-10, in [0, 1]."""
    noise = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return CIFAR.inverse(noise).clamp(0, 1)


def test_clear_cases() -> None:
    unit = photographs()
    assert infer(unit, CIFAR)[0] == "unit"
    assert infer(CIFAR(unit), CIFAR)[0] == "standardised"
    assert infer(CIFAR(unit) * 1.5, CIFAR)[0] == "standardised"  # learned pixels go further than real ones
    assert infer((unit > 0.5).float(), CIFAR)[0] == "unit"


@pytest.mark.parametrize("scale", [0.25, 0.1, 20.0])
def test_whitened_pixels_and_others_are_no_guess(scale: float) -> None:
    with pytest.raises(UserError, match=f"deviation of {scale:.2g}"):
        infer(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * scale, CIFAR)


def test_unit_pixels_that_exceed_a_little_are_no_guess() -> None:
    with pytest.raises(UserError, match="unclear"):
        infer(photographs() * 1.2 - 0.1, CIFAR)


def test_pixels_of_another_shape_cannot_be_unwhitened() -> None:
    from dsdistill.data.preprocess import ZCA

    whitening = ZCA(torch.zeros(192), torch.eye(192))
    with pytest.raises(UserError, match="cannot be brought from zca space"):
        to_unit(photographs(), "zca", CIFAR, lambda: whitening)
