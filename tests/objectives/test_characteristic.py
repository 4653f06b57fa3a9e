"""Characteristic functions against their definition and known ones; the adversary that picks frequencies."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dsdistill import seeding
from dsdistill.objectives.characteristic import FLOOR, characteristic, discrepancy, normalise, terms
from dsdistill.synthetic.adversary import FrequencySampler, reversed_gradient
from tests.reference import ncfm as reference


def draw(*shape: int, name: str = "", dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=seeding.generator(0, name, *shape), dtype=dtype)


def exact(value: Any, expected: Any) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.3, 0.7), (1.0, 0.25)])
def test_values_and_gradients_equal_a_loop_over_samples_and_frequencies(
    chunk: int, weights: tuple[float, float]
) -> None:
    inputs = [draw(5, 4), draw(2, 4), draw(7, 4)]
    ours, theirs = ([x.clone().requires_grad_() for x in inputs] for _ in range(2))

    real, synthetic, frequencies = ours
    values = (characteristic(normalise(each), frequencies, chunk) for each in (real, synthetic))
    value = discrepancy(*values, *weights)
    real, synthetic, frequencies = theirs
    unit = ([each / each.norm(dim=1, keepdim=True)] for each in (real, synthetic))
    (expected,) = reference.characteristic_discrepancy(*unit, [frequencies], *weights)
    exact(value, expected)
    exact(torch.autograd.grad(value, ours), torch.autograd.grad(expected, theirs))


def test_gradients_pass_gradcheck_alone_and_together() -> None:
    features, frequencies = draw(6, 3), draw(5, 3)
    for moving in ([features], [frequencies], [features, frequencies]):
        for tensor in (features, frequencies):
            tensor.requires_grad_(any(tensor is one for one in moving))
        inputs = (features, frequencies)
        assert torch.autograd.gradcheck(lambda f, t: characteristic(f, t, chunk=4), inputs)


def test_narrow_features_are_widened() -> None:
    narrow, frequencies = draw(2, 3).bfloat16(), draw(5, 3).float()
    found = characteristic(narrow, frequencies)
    assert found[0].dtype == torch.float32
    exact(found, characteristic(narrow.float(), frequencies))


def test_equal_weights_take_the_short_form_of_the_same_value() -> None:
    real, synthetic = (draw(40, name=name).mul(0.3) for name in ("real", "synthetic"))
    real, synthetic = ((x, x.flip(0)) for x in (real, synthetic))
    amplitude, phase = terms(real, synthetic)
    for weight in (0.5, 1.0):
        general = (weight * amplitude + weight * phase).sqrt().mean()
        exact(discrepancy(real, synthetic, weight, weight), general)


def test_terms_keep_their_digits_in_single_precision() -> None:
    real = (draw(50).mul(0.3), draw(50, name="imaginary").mul(0.3))
    near = tuple(part + 1e-4 * draw(50, name=str(i)) for i, part in enumerate(real))
    single = terms(*(tuple(part.float() for part in parts) for parts in (real, near)))
    for found, expected in zip(single, terms(real, near), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-10)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.3, 0.7), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equality_is_zero_with_a_finite_slope(weights: tuple[float, float], dtype: torch.dtype) -> None:
    features, frequencies = draw(4, 3, dtype=dtype).requires_grad_(), draw(9, 3, dtype=dtype)
    with torch.no_grad():
        target = characteristic(features, frequencies)
    value = discrepancy(target, characteristic(features, frequencies), *weights)
    assert value.item() == pytest.approx(0, abs=1.001 * math.sqrt(weights[1] * FLOOR) + 1e-15)
    (slope,) = torch.autograd.grad(value, features)
    assert slope.isfinite().all()
    zero = torch.zeros(9, dtype=dtype, requires_grad=True)  # |φ| has a corner at 0
    value = discrepancy((zero.detach(), zero.detach() + 0.1), (zero, zero), *weights)
    assert torch.autograd.grad(value, zero)[0].isfinite().all()


def gaussian(count: int, mean: Tensor, scale: float, name: str) -> Tensor:
    return mean + scale * draw(count, len(mean), name=name)


def test_gaussians_of_other_means_differ_in_phase_and_of_other_scales_in_amplitude() -> None:
    """φ of N(m, s²I) is exp(i t·m - s²|t|²/2); an estimate from n samples is off by about 1/√n."""
    count, frequencies = 100_000, draw(20, 3)
    zero, shift = torch.zeros(3, dtype=torch.float64), torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64)
    squared = frequencies.square().sum(1)
    standard, moved, wide = (
        characteristic(gaussian(count, mean, scale, name), frequencies, chunk=10_000)
        for mean, scale, name in ((zero, 1.0, "standard"), (shift, 1.0, "moved"), (zero, 1.6, "wide"))
    )
    near = {"rtol": 0, "atol": 6 / math.sqrt(count)}
    torch.testing.assert_close(standard[0], (-squared / 2).exp(), **near)
    torch.testing.assert_close(standard[1], torch.zeros_like(squared), **near)

    amplitude, phase = terms(standard, moved)
    torch.testing.assert_close(amplitude, torch.zeros_like(squared), rtol=0, atol=36 / count)
    torch.testing.assert_close(phase, 2 * (-squared).exp() * (1 - (frequencies @ shift).cos()), **near)
    assert phase.max() > 0.2

    amplitude, phase = terms(standard, wide)
    expected = ((-squared / 2).exp() - (-(1.6**2) * squared / 2).exp()).square()
    torch.testing.assert_close(amplitude, expected, **near)
    torch.testing.assert_close(phase, torch.zeros_like(squared), rtol=0, atol=36 / count)
    assert amplitude.max() > 0.04


class Largest(TorchDispatchMode):
    """Remember the size of the largest tensor made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


def test_phases_of_all_samples_never_exist() -> None:
    features, frequencies = draw(600, 5).requires_grad_(), draw(200, 5).requires_grad_()
    with Largest() as largest:
        real, imaginary = characteristic(features, frequencies, chunk=32)
        saved = real.grad_fn.saved_tensors
        (real.square() + imaginary).sum().backward()
    assert largest.elements == 32 * 200
    assert features.grad is not None
    assert [tensor.data_ptr() for tensor in saved] == [features.data_ptr(), frequencies.data_ptr()]


def test_without_a_gradient_there_is_no_graph_and_no_copy() -> None:
    features, frequencies = draw(600, 50), draw(10, 50)
    with Largest() as largest:
        real, _ = characteristic(features, frequencies, chunk=32)
    assert not real.requires_grad
    assert largest.elements == 32 * 50  # no more than a part of the features


@pytest.fixture
def sampler() -> FrequencySampler:
    with seeding.forked(0, "sampler"):
        return FrequencySampler(12, hidden=16).double()


def noise(sampler: FrequencySampler, count: int, index: int = 0) -> Tensor:
    stream = seeding.generator(0, "noise", index)
    return torch.randn(count, sampler.dim, generator=stream, dtype=torch.float64)


def apart() -> tuple[Tensor, Tensor]:
    """Return features that differ along some directions only."""
    real, synthetic = draw(60, 12, name="real"), draw(20, 12, name="synthetic")
    synthetic[:, :2] += 1.5
    return normalise(real), normalise(synthetic)


def distance(sampler: FrequencySampler, drawn: Tensor, synthetic: Tensor, reverse: bool = False) -> Tensor:
    frequencies = sampler.draw(drawn)
    frequencies = reversed_gradient(frequencies) if reverse else frequencies
    values = (characteristic(features, frequencies) for features in (apart()[0], synthetic))
    return discrepancy(*values)


def test_the_sampler_starts_at_the_noise_itself(sampler: FrequencySampler) -> None:
    assert torch.equal(sampler.draw(noise(sampler, 40)), noise(sampler, 40))


def test_one_backward_is_descent_for_features_and_ascent_for_the_sampler(sampler: FrequencySampler) -> None:
    drawn, synthetic = noise(sampler, 30), apart()[1].requires_grad_()
    with torch.no_grad():
        sampler.outer.weight += 0.1 * draw(12, 16)  # away from zero, where the inner layer has no slope
    inputs = [synthetic, *sampler.parameters()]
    plain = torch.autograd.grad(distance(sampler, drawn, synthetic), inputs)
    reversed_ = torch.autograd.grad(distance(sampler, drawn, synthetic, reverse=True), inputs)
    exact(reversed_[0], plain[0])
    for descent, ascent in zip(plain[1:], reversed_[1:], strict=True):
        exact(ascent, -descent)
        assert ascent.any()


def test_a_trained_sampler_finds_where_features_differ_and_keeps_distinct_frequencies(
    sampler: FrequencySampler,
) -> None:
    _, synthetic = apart()
    fresh = noise(sampler, 2000, index=-1)
    before = distance(sampler, fresh, synthetic)
    optimiser = torch.optim.SGD(sampler.parameters(), lr=1.0, momentum=0.5)
    for index in range(40):
        optimiser.zero_grad()
        distance(sampler, noise(sampler, 64, index), synthetic, reverse=True).backward()
        optimiser.step()
    assert distance(sampler, fresh, synthetic) > 1.5 * before
    for count in (8, 64):
        frequencies = sampler.draw(noise(sampler, count))
        assert torch.linalg.matrix_rank(frequencies) == min(count, 12)
        assert len(frequencies.unique(dim=0)) == count
        assert (frequencies - noise(sampler, count)).norm(dim=1).max() <= sampler.reach
