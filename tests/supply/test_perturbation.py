"""Noise on the weights of a network: as long as each filter, times a factor."""

from __future__ import annotations

import pytest
import torch

from dsdistill.networks import build_network
from dsdistill.networks.base import Network
from dsdistill.seeding import forked, generator
from dsdistill.supply.perturbation import perturb


def network(name: str = "convnet2-w6-batch") -> Network:
    with forked(0, "test"):
        return build_network(name, 3, 8, 4).double().requires_grad_(False)


def test_every_filter_moves_by_its_own_length_along_a_random_direction() -> None:
    plain, moved = network(), network()
    perturb(moved, 0.3, seed=5, draw=2)
    stream = generator(5, "perturbation", 2)
    for before, after in zip(plain.parameters(), moved.parameters(), strict=True):
        if before.dim() == 1:  # biases, and the scales and offsets of normalised maps
            assert torch.equal(before, after)
            continue
        noise = torch.randn(before.shape, generator=stream).double()
        for w, d, found in zip(before, noise, after, strict=True):  # filters, or rows of the linear layer
            length = float(w.square().sum().sqrt()) / float(d.square().sum().sqrt())
            torch.testing.assert_close(found, w + 0.3 * length * d)
            assert float((found - w).norm() / w.norm()) == pytest.approx(0.3)


def test_buffers_are_not_perturbed() -> None:
    plain, moved = network(), network()
    perturb(moved, 0.3, seed=0, draw=0)
    buffers = dict(plain.named_buffers())
    assert buffers
    for name, value in moved.named_buffers():
        assert torch.equal(value, buffers[name])


def test_noise_is_a_function_of_seed_and_draw() -> None:
    def moved(seed: int, draw: int, length: float = 0.1) -> torch.Tensor:
        chosen = network()
        perturb(chosen, length, seed, draw)
        return torch.cat([each.flatten() for each in chosen.parameters()])

    assert torch.equal(moved(1, 2), moved(1, 2))
    assert not torch.equal(moved(1, 2), moved(1, 3))
    assert not torch.equal(moved(1, 2), moved(2, 2))
    assert torch.equal(moved(1, 2, length=0), moved(3, 4, length=0))
