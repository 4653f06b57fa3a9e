"""Spatial attention against loops over images and positions, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsdistill import seeding
from dsdistill.objectives.attention import attention, attention_discrepancy, output_discrepancy
from tests.reference import datadam as reference

POWERS = [1, 2, 4]


def draw(name: str, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=seeding.generator(0, name), dtype=dtype)


def exact(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("p", [*POWERS, 1.5, 3])
def test_attention_and_its_gradient_equal_a_loop_over_positions(p: float) -> None:
    activation = draw("activation", 3, 4, 2, 5).requires_grad_()  # of both signs
    slope = draw("slope", 3, 10)
    found, expected = attention(activation, p), reference.looped_attention(activation, p)
    exact(found, expected)
    exact(reference.attention(activation, p), expected)
    (gradient,) = torch.autograd.grad(found, activation, slope)
    exact(gradient, torch.autograd.grad(expected, activation, slope)[0])
    assert gradient.abs().max() > 0


def test_attention_by_hand() -> None:
    # Two channels, one row: (1, -2) at the left, (2, 0) at the right.
    activation = torch.tensor([[[[1.0, 2.0]], [[-2.0, 0.0]]]])
    expected = {1: (3, 2), 2: (5, 4), 4: (17, 16)}
    for p, sums in expected.items():
        left, right = sums
        length = (left**2 + right**2) ** 0.5
        assert attention(activation, p)[0].tolist() == pytest.approx([left / length, right / length])


@pytest.mark.parametrize("p", POWERS)
def test_attention_has_unit_length_whatever_the_scale(p: int) -> None:
    activation = draw("activation", 5, 3, 4, 4)
    maps = attention(activation, p)
    exact(torch.linalg.vector_norm(maps, dim=1), torch.ones(5, dtype=torch.float64))
    exact(attention(-7 * activation, p), maps)


@pytest.mark.parametrize("p", [*POWERS, 1.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_map_of_zeros_stays_zero_and_has_a_finite_gradient(p: float, dtype: torch.dtype) -> None:
    activation = draw("activation", 3, 4, 2, 5, dtype=dtype)
    activation[1] = 0
    activation.requires_grad_()
    maps = attention(activation, p)
    assert not maps[1].any()
    target = draw("target", 3, 10, dtype=dtype)
    attention_discrepancy(target, maps).backward()
    assert activation.grad is not None
    assert activation.grad.isfinite().all()
    assert not activation.grad[1].any()
    assert activation.grad[0].any()


@pytest.mark.parametrize("p", POWERS)
def test_low_precision_is_summed_in_float32(p: int) -> None:
    activation = draw("activation", 2, 128, 4, 4).bfloat16()
    maps = attention(activation, p)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps.double(), attention(activation.double(), p), rtol=1e-5, atol=1e-6)


def test_discrepancies_are_sums_times_a_hundred() -> None:
    real, synthetic = torch.zeros(3, 6), torch.tensor([1.0, 1, 1, 1, 2, 2]).repeat(3, 1)
    assert attention_discrepancy(real, synthetic) == 100 * (12 + 24)
    assert output_discrepancy(torch.zeros(3, 5), torch.ones(3, 5), 0.01).item() == pytest.approx(15)
