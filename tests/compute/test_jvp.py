"""Directional derivatives and gradients of a network's loss, against plain double backward in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from dsdistill.compute.jvp import loss_jvp
from dsdistill.compute.learner import Learner
from dsdistill.networks import build_network
from dsdistill.networks.base import Network
from dsdistill.seeding import forked, generator
from dsdistill.supply.base import normalise_by_batch

CPU = torch.device("cpu")
NETWORKS = ["convnet2-w6", "convnet2-w6-none", "convnet2-w6-batch", "convnet2-w8-group-swish-maxpool", "mlp"]


def network(name: str) -> Network:
    with forked(1, "test"):
        return build_network(name, 2, 8, 3).double()


def batch(count: int = 5, soft: bool = False) -> tuple[Tensor, Tensor]:
    stream = generator(2, "test")
    images = torch.randn(count, 2, 8, 8, generator=stream, dtype=torch.float64)
    if soft:
        return images, torch.randn(count, 3, generator=stream, dtype=torch.float64).softmax(1)
    return images, torch.randint(3, (count,), generator=stream)


def random_like(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    stream = generator(3, "test")
    return {k: torch.randn(v.shape, generator=stream, dtype=torch.float64) for k, v in tensors.items()}


def double_backward(
    net: Network, images: Tensor, targets: Tensor, tangents: dict[str, Tensor]
) -> list[Tensor]:
    """Return vᵀ∇ℓ, its gradient to the images, to soft targets, and to every parameter."""
    weights = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
    images = images.detach().requires_grad_()
    targets = targets.detach().requires_grad_() if targets.is_floating_point() else targets
    loss = F.cross_entropy(functional_call(net, weights, (images,)), targets)
    gradients = torch.autograd.grad(loss, [weights[name] for name in tangents], create_graph=True)
    value = sum((g * v).sum() for g, v in zip(gradients, tangents.values(), strict=True))
    inputs = [images, *([targets] if targets.is_floating_point() else []), *weights.values()]
    assert isinstance(value, Tensor)
    return [value.detach(), *torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "which", [lambda p: True, lambda p: p.ndim == 4 or p.ndim == 2, lambda p: p.ndim == 1]
)
@pytest.mark.parametrize("soft", [False, True])
def test_directional_equals_double_backward(name: str, which: Callable[[Tensor], bool], soft: bool) -> None:
    net, (images, targets) = network(name), batch()
    tangents = random_like({name: p for name, p in net.named_parameters() if which(p)})
    if soft:
        targets = torch.randn(5, 3, generator=generator(4, "test"), dtype=torch.float64).softmax(1)
    expected = double_backward(net, images, targets, tangents)
    weights = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
    images.requires_grad_()
    targets = targets.requires_grad_() if soft else targets
    value = loss_jvp(net, weights, tangents, images, targets)
    inputs = [images, *([targets] if soft else []), *weights.values()]
    found = torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)
    # Biases before a normalisation have no effect, so that their derivatives are rounding errors.
    scale = max(float(tensor.abs().max()) for tensor in expected)
    torch.testing.assert_close([value.detach(), *found], expected, rtol=1e-9, atol=1e-12 * scale)


def test_batch_statistics_are_left_alone() -> None:
    net, (images, targets) = network("convnet2-w6-batch"), batch()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    weights = dict(net.named_parameters())
    loss_jvp(net, weights, random_like({"classifier.weight": weights["classifier.weight"]}), images, targets)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


@pytest.mark.parametrize("name", ["convnet2-w6", "convnet2-w6-batch"])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("chunk", [2, 5, 100])
def test_gradient_in_chunks_equals_the_whole(name: str, fixed: bool, chunk: int) -> None:
    net, (images, targets) = network(name), batch()
    normalise_by_batch(net, not fixed)
    learner = Learner(net, 8, CPU, chunk=chunk)
    names = ["blocks.1.conv.weight", "classifier.weight"]
    expected = torch.autograd.grad(
        F.cross_entropy(net(images), targets), [net.get_parameter(name) for name in names]
    )
    torch.testing.assert_close(learner.gradient(images, targets, names), list(expected))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_slope_is_the_gradient_to_the_images() -> None:
    net, (images, targets) = network("convnet2-w6"), batch()
    tangents = random_like({"blocks.0.conv.weight": net.get_parameter("blocks.0.conv.weight")})
    found = Learner(net, 8, CPU).image_grad(images, targets, tangents)
    torch.testing.assert_close(found, double_backward(net, images, targets, tangents)[1])


@pytest.mark.parametrize("soft", [False, True])
def test_compiled_code_serves_short_batches(monkeypatch: pytest.MonkeyPatch, soft: bool) -> None:
    seen: list[int] = []

    def recorded(function: Callable[..., Tensor], *_: object) -> Callable[..., Tensor]:
        def call(weights: dict[str, Tensor], images: Tensor, *rest: Tensor) -> Tensor:
            seen.append(len(images))
            return function(weights, images, *rest)

        return call

    monkeypatch.setattr("dsdistill.runtime.compiler.compile_or_eager", recorded)
    monkeypatch.setattr("dsdistill.runtime.compiler.why_unavailable", lambda device: None)
    net, (images, targets) = network("convnet2-w6"), batch(soft=soft)
    learner = Learner(net, 8, CPU, compile=True, chunk=3)
    expected = torch.autograd.grad(
        F.cross_entropy(net(images), targets), net.get_parameter("classifier.weight")
    )
    torch.testing.assert_close(learner.gradient(images, targets, ["classifier.weight"]), list(expected))
    assert seen == [3, 3]
