"""How a loss changes as a network's weights move: second-order matching without a graph of a graph.

For a scalar D of the gradient g = ∇_θ ℓ(x, θ), with v = ∂D/∂g held constant,

    ∇_x D = ∇_x [vᵀ ∇_θ ℓ(x, θ)]    and    vᵀ ∇_θ ℓ(x, θ) = d/dε ℓ(x, θ + εv) at ε = 0,

a directional derivative that one forward pass of dual numbers computes. A single reverse pass through that
gives the gradient to the pixels, and to the weights where a Hessian-vector product is asked for.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from dsdistill.networks.base import Network
from dsdistill.networks.convnet import ConvNet
from dsdistill.networks.external import External
from dsdistill.networks.layers import ConvBlock, convolve

Weights = Mapping[str, Tensor]
"""Parameters by name, as ``network.named_parameters()`` gives them."""


def loss_jvp(
    network: Network, weights: Weights, tangents: Weights, images: Tensor, targets: Tensor
) -> Tensor:
    """Return d/dε of the mean cross-entropy at ``weights + ε·tangents``, at ε = 0.

    Differentiable to ``weights``, ``images`` and ``targets``; the network's own parameters are not read.

    Args:
        network: any; ConvNets with instance norm take a route that ``torch.compile`` can fuse.
        weights: all parameters.
        tangents: directions of some or all of them; the others stay where they are.
        images: [B, C, H, W] in network space.
        targets: int64 [B], or probabilities [B, K].
    """
    if not has_forward_mode(network):
        return _twice_backward(network, weights, tangents, images, targets)
    if isinstance(network, ConvNet) and network.is_standard:
        return through_convnet(network, weights, tangents, images, None, targets)
    return _scored(*_through_any(network, weights, tangents, images), targets)


def _scored(logits: Tensor, change: Tensor, targets: Tensor) -> Tensor:
    """Return how the mean cross-entropy changes with the logits [B, K]."""
    if not targets.is_floating_point():
        targets = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
    error = logits.softmax(1) * targets.sum(1, keepdim=True) - targets
    return (error * change).sum(1).mean()


def _through_any(
    network: Network, weights: Weights, tangents: Weights, images: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the logits [B, K] and how they change, by torch's forward-mode differentiation."""

    def logits(moving: dict[str, Tensor]) -> Tensor:
        return functional_call(network, {**weights, **moving}, (images,))

    _quiet_forward_mode()
    moving = {name: weights[name] for name in tangents}
    value, change = jvp(logits, (moving,), (dict(tangents),))[:2]
    return value, change


def _twice_backward(
    network: Network, weights: Weights, tangents: Weights, images: Tensor, targets: Tensor
) -> Tensor:
    """Return the directional derivative by way of the gradient and its graph."""
    moving = [
        weights[name] if weights[name].requires_grad else weights[name].detach().requires_grad_()
        for name in tangents
    ]
    weights = {**weights, **dict(zip(tangents, moving, strict=True))}
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}  # the network's own stay
    with sdpa_kernel(SDPBackend.MATH):  # the only attention that can be differentiated twice
        loss = F.cross_entropy(functional_call(network, {**kept, **weights}, (images,)), targets)
        gradients = torch.autograd.grad(loss, moving, create_graph=True)
    return torch.stack([(g * v).sum() for g, v in zip(gradients, tangents.values(), strict=True)]).sum()


def has_forward_mode(network: Network) -> bool:
    """Whether one pass of dual numbers is enough; if not, the gradient's graph is made after all.

    Torch's forward mode leaves the statistics of a batch out of what it differentiates, and knows no fast
    attention, which only the networks of other libraries have.
    """
    reads_batch = any(isinstance(module, _BatchNorm) and module.training for module in network.modules())
    return not reads_batch and not isinstance(network, External)


@functools.cache
def _quiet_forward_mode() -> None:
    """Let torch load its forward-mode rules without a warning about torch's own use of ``torch.jit``."""
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore", FutureWarning)
        import torch._decomp.decompositions_for_jvp  # noqa: F401


def through_convnet(
    network: ConvNet,
    weights: Weights,
    tangents: Weights,
    x: Tensor,
    t: Tensor | None,
    targets: Tensor,
    first: int = 0,
) -> Tensor:
    """Do the same by hand, layer by layer, from a block on.

    Args:
        network: of instance norm, ReLU and average pooling.
        weights, tangents: as in `loss_jvp`.
        x: [B, c, h, w], the input of block ``first``.
        t: its change, or None for 0.
        targets: as in `loss_jvp`.
        first: number of a block.
    """
    for level, block in list(enumerate(network.blocks))[first:]:
        assert isinstance(block, ConvBlock)
        assert isinstance(block.norm, torch.nn.GroupNorm)
        conv, norm, padding = f"blocks.{level}.conv.", f"blocks.{level}.norm.", int(block.conv.padding[0])
        z = convolve(x, weights[conv + "weight"], weights[conv + "bias"], padding)
        dz = _sum(
            convolve(x, v, None, padding) if (v := tangents.get(conv + "weight")) is not None else None,
            convolve(t, weights[conv + "weight"], None, padding) if t is not None else None,
        )  # a bias is undone by the normalisation, so that its direction changes nothing
        variance, mean = torch.var_mean(z, (2, 3), correction=0, keepdim=True)
        rate = torch.rsqrt(variance + block.norm.eps)
        normal = (z - mean) * rate
        change = None
        if dz is not None:
            centred = dz - dz.mean((2, 3), keepdim=True)
            change = rate * (centred - normal * (normal * dz).mean((2, 3), keepdim=True))
            change = change * _column(weights[norm + "weight"])
        change = _sum(
            change,
            normal * _column(v) if (v := tangents.get(norm + "weight")) is not None else None,
            _column(v).expand_as(normal) if (v := tangents.get(norm + "bias")) is not None else None,
        )
        y = normal * _column(weights[norm + "weight"]) + _column(weights[norm + "bias"])
        x = F.avg_pool2d(F.relu(y), 2)
        t = F.avg_pool2d(torch.where(y > 0, change, 0), 2) if change is not None else None
    x, t = x.flatten(1), t.flatten(1) if t is not None else None
    logits = F.linear(x, weights["classifier.weight"], weights["classifier.bias"])
    change = _sum(
        F.linear(t, weights["classifier.weight"]) if t is not None else None,
        F.linear(x, v) if (v := tangents.get("classifier.weight")) is not None else None,
        v.expand_as(logits) if (v := tangents.get("classifier.bias")) is not None else None,
    )
    return _scored(logits, torch.zeros_like(logits) if change is None else change, targets)


def _column(vector: Tensor) -> Tensor:
    return vector[:, None, None]


def _sum(*terms: Tensor | None) -> Tensor | None:
    present = [term for term in terms if term is not None]
    return (
        torch.stack(present).sum(0) if len(present) > 2 else sum(present[1:], present[0]) if present else None
    )
