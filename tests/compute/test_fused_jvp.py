"""The directional derivative through the first block in one loop, against the plain way, in float64."""

from __future__ import annotations

from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.compute import fused, fused_jvp
from dsdistill.compute.fused_jvp import FusedJvp, coefficients, dual
from dsdistill.compute.jvp import loss_jvp
from dsdistill.networks import build_network
from dsdistill.networks.convnet import ConvNet
from dsdistill.seeding import forked, generator
from tests.helpers.marks import slow_but_first


@pytest.fixture(autouse=True)
def _uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled is plain tensor code: it is tested as such, and compiled by the last test."""
    monkeypatch.setattr(fused_jvp, "_compiled", lambda function, *_: function)


def network(channels: int, size: int, name: str = "convnet3-w6") -> ConvNet:
    with forked(0, "test"):
        made = build_network(name, channels, size, 4).double()
        for parameter in made.parameters():
            if parameter.dim() == 1:
                torch.nn.init.normal_(parameter, 0.5, 0.5)
    return cast(ConvNet, made.requires_grad_(False))


def noise(*shape: int, stream: str = "noise") -> Tensor:
    return torch.randn(shape, generator=generator(0, stream), dtype=torch.float64)


DIRECTIONS = {
    "all": lambda name: True,
    "convolutions": lambda name: name.endswith("conv.weight"),
    "norms": lambda name: ".norm." in name,
    "classifier": lambda name: name.startswith("classifier"),
}


@pytest.mark.parametrize("which", DIRECTIONS)
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 16), (1, 15)])
@pytest.mark.parametrize("count", slow_but_first([5, 1]))
@pytest.mark.parametrize("soft", [False, True])
def test_value_and_gradients_are_those_of_the_plain_way(
    which: str, channels: int, size: int, count: int, soft: bool
) -> None:
    net = network(channels, size)
    assert fused.supports(net)
    weights = {name: value.clone().requires_grad_() for name, value in net.named_parameters()}
    tangents = {
        name: noise(*value.shape, stream=name) for name, value in weights.items() if DIRECTIONS[which](name)
    }
    images = noise(count, channels, size, size, stream="images").requires_grad_()
    targets = (
        noise(count, 4, stream="targets").softmax(1).requires_grad_() if soft else torch.arange(count) % 4
    )
    inputs = [images, *weights.values(), *([targets] if soft else [])]
    found, expected = (
        way(weights, tangents, images, targets)
        for way in (FusedJvp(net), lambda *given: loss_jvp(net, *given))
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    ours, theirs = (
        torch.autograd.grad(each, inputs, allow_unused=True, materialize_grads=True)
        for each in (found, expected)
    )
    assert float(theirs[0].abs().max()) > 0
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


def test_the_first_block_alone() -> None:
    """Its outputs, from the network's own layers and forward-mode differentiation."""
    net = network(3, 16)
    block = net.blocks[0]
    x = noise(2, 3, 16, 16)
    weights = dict(net.named_parameters())
    tangents = {name: noise(*value.shape, stream=name) for name, value in weights.items()}
    padded = F.pad(x, (1,) * 4)
    value, change = dual(padded, *coefficients(padded, weights, tangents, 1e-5))
    torch.testing.assert_close(value.permute(0, 3, 1, 2), block(x), rtol=1e-10, atol=1e-12)
    own = {
        name.removeprefix("blocks.0."): each
        for name, each in tangents.items()
        if name.startswith("blocks.0.")
    }
    step = 1e-6
    moved = [
        torch.func.functional_call(
            block,
            {name: weights[f"blocks.0.{name}"] + sign * step * each for name, each in own.items()},
            (x,),
        )
        for sign in (1, -1)
    ]
    numeric = (moved[0] - moved[1]) / (2 * step)
    torch.testing.assert_close(change.permute(0, 3, 1, 2), numeric, rtol=1e-5, atol=1e-6)


def test_a_batch_larger_than_a_part() -> None:
    net = network(1, 8, "convnet2-w6")
    weights = dict(net.named_parameters())
    tangents = {name: noise(*value.shape, stream=name) for name, value in weights.items()}
    images, targets = noise(50, 1, 8, 8).requires_grad_(), torch.arange(50) % 4
    found, expected = (
        torch.autograd.grad(way(weights, tangents, images, targets), images)[0]
        for way in (FusedJvp(net), lambda *given: loss_jvp(net, *given))
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own look
def test_compiled_it_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    net = cast(ConvNet, network(1, 8, "convnet2-w6").float())
    weights = {name: value.clone().requires_grad_() for name, value in net.named_parameters()}
    tangents = {name: noise(*value.shape, stream=name).float() for name, value in weights.items()}
    images, targets = noise(3, 1, 8, 8).float().requires_grad_(), torch.arange(3)
    said: list[str] = []
    ways = (FusedJvp(net, said.append), lambda *given: loss_jvp(net, *given))
    found, expected = (way(weights, tangents, images, targets) for way in ways)
    torch.testing.assert_close(found, expected)
    inputs = [images, *weights.values()]
    ours, theirs = (
        torch.autograd.grad(each, inputs, allow_unused=True, materialize_grads=True)
        for each in (found, expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    halves = FusedJvp(net, said.append, "bf16")(weights, tangents, images, targets)
    assert halves.dtype == torch.float32
    torch.testing.assert_close(halves, expected, rtol=0.05, atol=0.01)
    assert not torch.equal(halves, found)
    rounded = torch.autograd.grad(halves, images)[0]
    assert (rounded - theirs[0]).norm() < 0.05 * theirs[0].norm()
    assert not said  # nothing fell back to eager code
