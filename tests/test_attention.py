"""Attention matching against loops over images and positions, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dsdistill import seeding
from dsdistill.errors import UserError
from dsdistill.networks import Network
from dsdistill.objectives.attention import (
    attention,
    attention_discrepancy,
    attention_sums,
    output_discrepancy,
)
from tests.networks_helpers import build
from tests.reference import datadam as reference

POWERS = [1, 2, 4]
NETWORKS = ["convnet2-w6", "convnet2-w6-batch", "convnet3-w4-swish"]
BALANCE = 0.02


def draw(name: str, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=seeding.generator(0, name), dtype=dtype)


def exact(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-12)


def network_for(name: str) -> Network:
    network = build(name, size=8, num_classes=3).double().train()
    return network.requires_grad_(False)


def terms(network: Network, real: Tensor, counts: Tensor, fake: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Both terms as an engine puts them together: sums of the real side, means of the synthetic one."""
    classes = len(counts)
    maps, output = network.trace(real)
    owner = torch.arange(classes).repeat_interleave(counts)
    sums = attention_sums(maps[:-1], p, owner, classes)
    embedded = torch.stack([part.mean(0) for part in output.split(counts.tolist())])
    ours, embedding = network.trace(fake.flatten(0, 1))
    own = torch.arange(classes).repeat_interleave(fake.shape[1])
    means = [layer / fake.shape[1] for layer in attention_sums(ours[:-1], p, own, classes)]
    return (
        attention_discrepancy([layer / counts[:, None] for layer in sums], means),
        output_discrepancy(embedded, embedding.unflatten(0, fake.shape[:2]).mean(1), BALANCE),
    )


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
    attention_discrepancy([target], [maps]).backward()
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


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_terms_and_pixel_gradient_equal_loops_over_uneven_classes(name: str, p: int) -> None:
    network, counts = network_for(name), torch.tensor([4, 1, 3])
    real, fake = draw("real", 8, 3, 8, 8), draw("synthetic", 3, 2, 3, 8, 8).requires_grad_()
    found = terms(network, real, counts, fake, p)
    expected = reference.looped_terms(
        network.trace(real),
        network.trace(fake.flatten(0, 1)),
        [0, 0, 0, 0, 1, 2, 2, 2],
        [0, 0, 1, 1, 2, 2],
        p,
        BALANCE,
    )
    for term, wanted in zip(found, expected, strict=True):
        assert wanted > 0
        exact(term, wanted)
        (gradient,) = torch.autograd.grad(term, fake, retain_graph=True)
        exact(gradient, torch.autograd.grad(wanted, fake, retain_graph=True)[0])
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_terms_add_up_to_the_plain_version(name: str, p: int) -> None:
    network = network_for(name)
    real, fake = draw("real", 3, 4, 3, 8, 8), draw("synthetic", 3, 2, 3, 8, 8).requires_grad_()
    augment: list[Callable[[Tensor], Tensor]] = [lambda x: x, lambda x: x.flip(-1), lambda x: 0.5 * x]
    seen = [torch.stack([a(x) for a, x in zip(augment, side, strict=True)]) for side in (real, fake)]
    found = sum(terms(network, seen[0].flatten(0, 1), torch.tensor([4, 4, 4]), seen[1], p))
    expected = reference.attention_matching_loss(network, list(real), list(fake), augment, p, BALANCE)
    assert isinstance(found, Tensor)
    exact(found, expected)
    exact(torch.autograd.grad(found, fake)[0], torch.autograd.grad(expected, fake)[0])


def test_sums_of_chunks_add_up() -> None:
    maps = [draw("first", 6, 3, 4, 4), draw("second", 6, 2, 2, 2)]
    owner = torch.tensor([2, 0, 0, 2, 1, 0])
    whole = attention_sums(maps, 2, owner, 4)
    chunks = [attention_sums([m[rows] for m in maps], 2, owner[rows], 4) for rows in torch.arange(6).split(4)]
    for total, first, second in zip(whole, *chunks, strict=True):
        exact(first + second, total)
        assert not total[3].any()  # nobody's class
    assert [layer.shape for layer in whole] == [(4, 16), (4, 4)]


def test_discrepancies_are_sums_times_a_hundred() -> None:
    real, synthetic = [torch.zeros(3, 4), torch.zeros(3, 2)], [torch.ones(3, 4), 2 * torch.ones(3, 2)]
    assert attention_discrepancy(real, synthetic) == 100 * (12 + 24)
    assert attention_discrepancy(real, real) == 0
    assert output_discrepancy(torch.zeros(3, 5), torch.ones(3, 5), 0.01).item() == pytest.approx(15)


def test_layers_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        attention_discrepancy([torch.zeros(3, 4)] * 2, [torch.zeros(3, 4)])
    with pytest.raises(UserError, match="two or more blocks"):
        attention_discrepancy([], [])
