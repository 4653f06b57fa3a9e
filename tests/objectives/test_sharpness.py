"""Adaptive GSAM: its equations, and what they promise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsdistill.objectives.sharpness import descent, perturbation
from dsdistill.seeding import generator
from tests.reference import gsam

SHAPES = [(6, 3, 3, 3), (6,), (4, 24), (4,)]


def tensors(which: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    stream = generator(0, "tensors", which)
    return [torch.randn(shape, generator=stream, dtype=torch.float64).to(dtype) for shape in SHAPES]


def flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_against_the_equations(alpha: float, dtype: torch.dtype, accuracy: float) -> None:
    weights, one, two = tensors(0, dtype), tensors(1, dtype), tensors(2, dtype)
    expected = gsam.climb(tensors(0), tensors(1), 0.01)
    found = perturbation(weights, one, 0.01)
    torch.testing.assert_close(flat(found).double(), flat(expected), rtol=accuracy, atol=accuracy)
    expected = gsam.combined(tensors(1), tensors(2), alpha)
    torch.testing.assert_close(
        flat(descent(one, two, alpha)).double(), flat(expected), rtol=accuracy, atol=accuracy
    )
    for before, after in ((tensors(0, dtype), weights), (tensors(1, dtype), one), (tensors(2, dtype), two)):
        assert torch.equal(flat(before), flat(after))


def test_the_perturbation_is_the_steepest_of_its_length() -> None:
    weights, gradient = tensors(0), tensors(1)
    found = flat(perturbation(weights, gradient, 0.5))
    scale = flat(weights).abs()
    assert float((found / scale).norm()) == pytest.approx(0.5)
    rise = float(found @ flat(gradient))
    others = torch.randn(200, len(found), generator=generator(0, "others"), dtype=torch.float64)
    others = 0.5 * scale * others / others.norm(dim=1, keepdim=True)
    assert rise > float((others @ flat(gradient)).max())
    assert rise == pytest.approx(0.5 * float((scale * flat(gradient)).norm()))


def test_a_weight_of_zero_stays() -> None:
    weights = tensors(0)
    weights[0][2] = 0
    found = perturbation(weights, tensors(1), 2.0)
    assert not found[0][2].any()
    assert found[0][1].all()


def test_no_alpha_is_asam() -> None:
    found = descent(tensors(1), tensors(2), 0.0)
    assert torch.equal(flat(found), flat(tensors(2)))


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_what_is_subtracted_is_orthogonal_to_the_perturbed_gradient(alpha: float) -> None:
    one, two = flat(tensors(1)), flat(tensors(2))
    subtracted = (two - flat(descent(tensors(1), tensors(2), alpha))) / alpha
    assert float(subtracted @ two) == pytest.approx(0, abs=1e-9)
    along = one - subtracted  # the rest of g₁ lies along g₂
    assert float(along @ two) == pytest.approx(
        float(along.norm() * two.norm()) * float(torch.sign(one @ two))
    )


def test_a_gradient_that_does_not_turn_is_stepped_along() -> None:
    two = [2.5 * part for part in tensors(1)]
    torch.testing.assert_close(flat(descent(tensors(1), two, 1.0)), flat(two))


def test_a_small_radius_gives_the_plain_gradient() -> None:
    matrix = torch.randn(20, 10, generator=generator(0, "matrix"), dtype=torch.float64)
    weights = torch.randn(10, generator=generator(0, "weights"), dtype=torch.float64)
    plain = matrix.T @ (matrix @ weights)
    for radius, near in ((1e-2, 1e-1), (1e-6, 1e-5), (0.0, 1e-12)):
        moved = weights + perturbation([weights], [plain], radius)[0]
        (found,) = descent([plain], [matrix.T @ (matrix @ moved)], 0.7)
        assert float((found - plain).norm() / plain.norm()) < near


def test_it_lowers_the_sharper_direction_more() -> None:
    """Of a loss ½ Σ cᵢ wᵢ² with equal plain gradients, the step is longer where the curvature is greater."""
    curvature = torch.tensor([1.0, 10.0], dtype=torch.float64)
    weights = torch.tensor([10.0, 1.0], dtype=torch.float64)
    plain = curvature * weights
    moved = weights + perturbation([weights], [plain], 0.1)[0]
    same, _ = moved / weights
    assert same > 1
    expected = gsam.direction([weights], lambda at: [curvature * at[0]], 0.1, 0.3)
    (found,) = descent([plain], [curvature * moved], 0.3)
    torch.testing.assert_close(found, expected[0])


def test_gradients_of_zero_stay_finite() -> None:
    nothing = [torch.zeros_like(part) for part in tensors(0)]
    assert not flat(perturbation(tensors(0), nothing, 0.01)).any()
    assert not flat(descent(nothing, nothing, 1.0)).any()
    torch.testing.assert_close(flat(descent(nothing, tensors(2), 1.0)), flat(tensors(2)))
