"""The directional derivative of a loss to a network's weights: gradient matching without double backward.

Let D be a scalar function of the gradient g = ∇_θ ℓ(x, θ), and v = ∂D/∂g a constant. Then

    ∇_x D = ∇_x [vᵀ ∇_θ ℓ(x, θ)]    and    vᵀ ∇_θ ℓ(x, θ) = d/dε ℓ(x, θ + εv) at ε = 0.

The right-hand side is a Jacobian-vector product (jvp) with the tangent v. One forward pass of dual numbers
computes it, and one backward pass through that gives the gradient to the pixels. If the weights require a
gradient, it also gives the Hessian-vector product.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from dsdistill.networks.base import Network
from dsdistill.networks.convnet import ConvNet
from dsdistill.networks.layers import ConvBlock, convolve
from dsdistill.networks.wrapped import Wrapped
from dsdistill.objectives.precision import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

Weights = Mapping[str, Tensor]
"""Parameters by name, as ``network.named_parameters()`` gives them."""


def loss_jvp(
    network: Network,
    weights: Weights,
    tangents: Weights,
    images: Float[Tensor, "B C H W"],
    targets: Int64[Tensor, " B"] | Float[Tensor, "B K"],
) -> Float[Tensor, ""]:
    """Return d/dε of the mean cross-entropy at ``weights + ε·tangents``, at ε = 0.

    Differentiable in ``weights``, ``images`` and ``targets``; the network's own parameters are not read.

    Args:
        network: any; for ConvNets with instance norm, the code is one that ``torch.compile`` can fuse.
        weights: all parameters.
        tangents: directions of some or all of them; the others have the direction zero.
        images: [B, C, H, W] in network space.
        targets: int64 [B], or probabilities [B, K].
    """
    if not has_forward_mode(network):
        return _double_backward(network, weights, tangents, images, targets)
    if isinstance(network, ConvNet) and network.is_standard:
        return convnet_loss_jvp(network, weights, tangents, images, None, targets)
    return _cross_entropy_jvp(*_logits_jvp(network, weights, tangents, images), targets)


def _cross_entropy_jvp(logits: Tensor, tangent: Tensor, targets: Tensor) -> Tensor:
    """Return the jvp of the mean cross-entropy at logits [B, K] and their tangent [B, K]."""
    logits, tangent = at_least_float32(logits), at_least_float32(tangent)
    if not targets.is_floating_point():
        targets = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
    error = logits.softmax(1) * targets.sum(1, keepdim=True) - targets
    return (error * tangent).sum(1).mean()


def _logits_jvp(
    network: Network, weights: Weights, tangents: Weights, images: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the logits [B, K] and their jvp, by torch's forward-mode differentiation.

    It is in the precision of the images: under autocast torch gives a convolution two dtypes.
    """

    def logits(primals: dict[str, Tensor]) -> Tensor:
        return functional_call(network, {**weights, **primals}, (images,))

    _load_forward_mode()
    primals = {name: weights[name] for name in tangents}
    with torch.autocast(images.device.type, enabled=False):
        value, tangent = jvp(logits, (primals,), (dict(tangents),))[:2]
    return value, tangent


def _double_backward(
    network: Network, weights: Weights, tangents: Weights, images: Tensor, targets: Tensor
) -> Tensor:
    """Return the jvp as the product of tangents and gradient, with a graph of the gradient."""
    primals = [
        weights[name] if weights[name].requires_grad else weights[name].detach().requires_grad_()
        for name in tangents
    ]
    weights = {**weights, **dict(zip(tangents, primals, strict=True))}
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}  # updated in place
    with sdpa_kernel(SDPBackend.MATH):  # the only attention that is twice differentiable
        loss = F.cross_entropy(functional_call(network, {**buffers, **weights}, (images,)), targets)
        gradients = torch.autograd.grad(loss, primals, create_graph=True)
    return torch.stack([(g * v).sum() for g, v in zip(gradients, tangents.values(), strict=True)]).sum()


def has_forward_mode(network: Network) -> bool:
    """Whether the loss has a forward-mode jvp; otherwise `loss_jvp` keeps the graph of the gradient.

    Torch's forward mode does not differentiate the statistics of a batch, and has no rule for fast attention,
    which only networks of libraries and of users have.
    """
    reads_batch = any(isinstance(module, _BatchNorm) and module.training for module in network.modules())
    return not reads_batch and not isinstance(network, Wrapped)


@functools.cache
def _load_forward_mode() -> None:
    """Load torch's forward-mode rules, without a warning about torch's own use of ``torch.jit``."""
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore", FutureWarning)
        import torch._decomp.decompositions_for_jvp  # noqa: F401


def convnet_loss_jvp(
    network: ConvNet,
    weights: Weights,
    tangents: Weights,
    x: Float[Tensor, "B c h w"],
    x_tangent: Float[Tensor, "B c h w"] | None,
    targets: Int64[Tensor, " B"] | Float[Tensor, "B K"],
    first: int = 0,
) -> Float[Tensor, ""]:
    """Return `loss_jvp` of a ConvNet from a block on, with the jvp of each layer written out.

    Args:
        network: of instance norm, ReLU and average pooling.
        weights, tangents: as in `loss_jvp`.
        x: [B, c, h, w], the input of block ``first``.
        x_tangent: its tangent, or None for zero.
        targets: as in `loss_jvp`.
        first: number of a block.
    """
    for level, block in list(enumerate(network.blocks))[first:]:
        assert isinstance(block, ConvBlock)
        assert isinstance(block.norm, torch.nn.GroupNorm)
        conv, norm, padding = f"blocks.{level}.conv.", f"blocks.{level}.norm.", int(block.conv.padding[0])
        z = at_least_float32(convolve(x, weights[conv + "weight"], weights[conv + "bias"], padding))
        z_tangent = _sum(
            convolve(x, v, None, padding) if (v := tangents.get(conv + "weight")) is not None else None,
            convolve(x_tangent, weights[conv + "weight"], None, padding) if x_tangent is not None else None,
        )  # the normalisation removes the bias, and so its tangent
        variance, mean = torch.var_mean(z, (2, 3), correction=0, keepdim=True)
        rate = torch.rsqrt(variance + block.norm.eps)
        normal = (z - mean) * rate
        y_tangent = None
        if z_tangent is not None:
            centred = z_tangent - z_tangent.mean((2, 3), keepdim=True)
            y_tangent = rate * (centred - normal * (normal * z_tangent).mean((2, 3), keepdim=True))
            y_tangent = y_tangent * _column(weights[norm + "weight"])
        y_tangent = _sum(
            y_tangent,
            normal * _column(v) if (v := tangents.get(norm + "weight")) is not None else None,
            _column(v).expand_as(normal) if (v := tangents.get(norm + "bias")) is not None else None,
        )
        y = normal * _column(weights[norm + "weight"]) + _column(weights[norm + "bias"])
        x = F.avg_pool2d(F.relu(y), 2)
        x_tangent = F.avg_pool2d(torch.where(y > 0, y_tangent, 0), 2) if y_tangent is not None else None
    x, x_tangent = x.flatten(1), x_tangent.flatten(1) if x_tangent is not None else None
    logits = F.linear(x, weights["classifier.weight"], weights["classifier.bias"])
    logits_tangent = _sum(
        F.linear(x_tangent, weights["classifier.weight"]) if x_tangent is not None else None,
        F.linear(x, v) if (v := tangents.get("classifier.weight")) is not None else None,
        v.expand_as(logits) if (v := tangents.get("classifier.bias")) is not None else None,
    )
    if logits_tangent is None:
        logits_tangent = torch.zeros_like(logits)
    return _cross_entropy_jvp(logits, logits_tangent, targets)


def _column(vector: Tensor) -> Tensor:
    return vector[:, None, None]


def _sum(*terms: Tensor | None) -> Tensor | None:
    present = [at_least_float32(term) for term in terms if term is not None]
    return (
        torch.stack(present).sum(0) if len(present) > 2 else sum(present[1:], present[0]) if present else None
    )
