"""Maximum mean discrepancy against double loops over pairs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dsdistill import seeding
from dsdistill.errors import UserError
from dsdistill.objectives.kernels import (
    Gaussian,
    Kernel,
    Linear,
    Polynomial,
    median_bandwidth,
    squared_mmd,
    squared_mmd_by_class,
)
from tests.reference import ncfm as reference

KERNELS: list[Kernel] = [
    Linear(),
    Polynomial(),
    Polynomial(degree=2),
    Gaussian(bandwidth=1.3),
    Gaussian(),
]


def draw(*shape: int, name: str = "") -> Tensor:
    return torch.randn(shape, generator=seeding.generator(0, name, *shape), dtype=torch.float64)


def of_pair(kernel: Kernel, x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    """Evaluate a kernel at one pair, as its formula reads."""
    match kernel:
        case Linear():
            return (x * y).sum()
        case Polynomial(degree=degree):
            return ((x * y).sum() / len(x) + 1) ** degree
        case Gaussian():
            return (-((x - y) ** 2).sum() / (2 * bandwidth**2)).exp()


def looped(real: Tensor, synthetic: Tensor, kernel: Kernel) -> Tensor:
    bandwidth = getattr(kernel, "bandwidth", None)
    if bandwidth is None:
        gaps = sorted(float((x - y).norm()) for i, x in enumerate(real) for y in real[:i])
        bandwidth = gaps[(len(gaps) - 1) // 2]
    return reference.squared_mmd(real, synthetic, lambda x, y: of_pair(kernel, x, y, bandwidth))


def exact(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_values_and_gradients_equal_double_loops_whatever_the_sizes_of_classes(kernel: Kernel) -> None:
    real = [draw(count, 4) for count in (7, 3, 2)]
    synthetic = [draw(count, 4, name="synthetic") + 0.5 for count in (2, 1, 3)]
    ours, theirs = ([x.clone().requires_grad_() for x in synthetic] for _ in range(2))
    value = squared_mmd_by_class(real, ours, kernel)
    expected = torch.stack([looped(r, s, kernel) for r, s in zip(real, theirs, strict=True)])
    exact(value, expected)
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    for found, wanted in zip(
        torch.autograd.grad(value, ours, weights), torch.autograd.grad(expected, theirs, weights), strict=True
    ):
        exact(found, wanted)
        assert found.any()
    assert (value >= 0).all()


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_samples_have_no_discrepancy_and_no_slope(kernel: Kernel, dtype: torch.dtype) -> None:
    features = draw(30, 8).to(dtype)
    synthetic = features.flip(0).requires_grad_()
    value = squared_mmd(features, synthetic, kernel)
    rounding = 100 * torch.finfo(dtype).eps
    assert abs(value.item()) < rounding
    assert torch.autograd.grad(value, synthetic)[0].abs().max() < rounding


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_single_and_repeated_synthetic_features_have_a_finite_slope(kernel: Kernel) -> None:
    real = draw(6, 3).float()
    for synthetic in (real[:1].clone(), real[:1].repeat(3, 1)):
        synthetic.requires_grad_()
        value = squared_mmd(real, synthetic, kernel)
        assert torch.autograd.grad(value, synthetic)[0].isfinite().all()
        assert value > 0


def test_a_linear_kernel_is_the_squared_distance_of_means() -> None:
    real, synthetic = draw(3, 9, 5), draw(3, 4, 5, name="synthetic")
    expected = [
        sum((sum(r[:, d].tolist()) / 9 - sum(s[:, d].tolist()) / 4) ** 2 for d in range(5))
        for r, s in zip(real, synthetic, strict=True)
    ]
    assert squared_mmd_by_class(real, synthetic, Linear()).tolist() == pytest.approx(expected, rel=1e-12)


def test_only_a_kernel_beyond_the_linear_sees_a_difference_of_scale() -> None:
    real = torch.tensor([[-1.0], [1.0]])
    assert squared_mmd(real, 2 * real, Linear()) == 0
    assert squared_mmd(real, 2 * real, Gaussian(bandwidth=1.0)) > 0.1
    assert squared_mmd(real, 2 * real, Polynomial(degree=2)) > 0.1


def test_discrepancy_of_two_points_by_hand() -> None:
    origin, point = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
    value = squared_mmd(origin, point, Gaussian(bandwidth=5.0))
    assert value.item() == pytest.approx(2 - 2 * math.exp(-0.5))
    value = squared_mmd(origin, point, Polynomial())  # 1³ - 2·1³ + (25/2 + 1)³
    assert value.item() == pytest.approx(13.5**3 - 1)


def test_the_median_rule_by_hand() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0]])  # distances 1, 2 and 3
    assert median_bandwidth(line).item() == pytest.approx(2)
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [3.0, 0.0], [3.0, 1.0]])  # 1, 1, 3, 3, √10, √10
    assert median_bandwidth(corners).item() == pytest.approx(3)
    assert median_bandwidth(torch.tensor([[0.0], [7.0]])).item() == pytest.approx(7)
    shifted = squared_mmd(line, line + 1, Gaussian(bandwidth=2.0))
    exact(squared_mmd(line, line + 1, Gaussian()), shifted)  # the real features alone decide
    moving = line.clone().requires_grad_()
    assert not median_bandwidth(moving).requires_grad


def test_real_features_that_are_all_equal_still_give_a_number() -> None:
    synthetic = torch.ones(2, 3, requires_grad=True)
    value = squared_mmd(torch.zeros(4, 3), synthetic, Gaussian())
    assert value.item() == pytest.approx(2)
    assert torch.autograd.grad(value, synthetic)[0].isfinite().all()


def test_bad_kernels_are_refused() -> None:
    for bandwidth in (0.0, -1.0, math.nan):
        with pytest.raises(UserError, match="is positive"):
            Gaussian(bandwidth=bandwidth)
    with pytest.raises(UserError, match="degree of at least 1"):
        Polynomial(degree=0)
    with pytest.raises(UserError, match="two real images"):
        squared_mmd(torch.ones(1, 2), torch.ones(3, 2), Gaussian())
