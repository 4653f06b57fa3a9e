"""Optimisers of networks: what a step of each kind is, and that a state goes on bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from torch import Tensor

from dsdistill.compute.optimiser import MOMENTS, Kind, make_optimiser, restore, state_of
from dsdistill.networks import Network
from tests.helpers.networks import build, images

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Options:
    optimiser: Kind
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.1


def step(network: Network, optimiser: torch.optim.Optimizer, number: int) -> None:
    loss = network(images(1, 8, 4 + number)).square().mean()
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()


def flat(network: Network) -> Tensor:
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def by_hand(kind: Kind, options: Options, gradients: list[Tensor], weight: Tensor) -> Tensor:
    """Follow gradients in float64, by the equations of the papers."""
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for number, gradient in enumerate(gradients, 1):
        if kind == "adamw":
            weight = weight * (1 - options.lr * options.weight_decay)
        else:
            gradient = gradient + options.weight_decay * weight
        if kind == "sgd":
            first = options.momentum * first + gradient
            weight = weight - options.lr * first
            continue
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.square()
        hat = (second / (1 - 0.999**number)).sqrt() + 1e-8
        weight = weight - options.lr * first / (1 - 0.9**number) / hat
    return weight


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_the_equations(kind: Kind) -> None:
    network = build("convnet2-w6", 1, 8, 3).double()
    options = Options(kind)
    optimiser = make_optimiser(network, options)
    weight = network.classifier.weight
    assert isinstance(weight, Tensor)
    start, gradients = weight.detach().clone(), []
    for number in range(3):
        gradients.append(
            torch.linspace(-1, 2, weight.numel(), dtype=torch.float64).view_as(weight) ** (number + 1)
        )
        weight.grad = gradients[-1].clone()
        optimiser.step()
    expected = by_hand(kind, options, gradients, start)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_state_goes_on_bit_for_bit(kind: Kind, momentum: float) -> None:
    options, name = Options(kind, momentum=momentum), "convnet2-w6-batch"
    whole, stopped, resumed = (build(name, 1, 8, 3) for _ in range(3))
    optimiser = make_optimiser(whole, options)
    for number in range(5):
        step(whole, optimiser, number)
    optimiser = make_optimiser(stopped, options)
    for number in range(2):
        step(stopped, optimiser, number)
    state = {key: value.clone() for key, value in state_of(stopped, optimiser).items()}
    step(stopped, optimiser, 7)  # what goes on after it is saved does not move the state that was
    optimiser = make_optimiser(resumed, options)
    restore(resumed, optimiser, state)
    for number in range(2, 5):
        step(resumed, optimiser, number)
    assert torch.equal(flat(resumed), flat(whole))
    moments = {key.partition(".")[0] for key in state} - {"network", "step"}
    assert len(moments) == (0 if kind == "sgd" and not momentum else MOMENTS[kind])


def test_a_restored_optimiser_shares_no_memory_with_the_state() -> None:
    network = build("convnet2-w6", 1, 8, 3)
    optimiser = make_optimiser(network, Options("adam"))
    step(network, optimiser, 0)
    state = {key: value.clone() for key, value in state_of(network, optimiser).items()}
    before = {key: value.clone() for key, value in state.items()}
    optimiser = make_optimiser(network, Options("adam"))
    restore(network, optimiser, state)
    step(network, optimiser, 1)
    assert all(torch.equal(state[key], before[key]) for key in state)
