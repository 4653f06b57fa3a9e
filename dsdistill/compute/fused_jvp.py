"""The jvp of a ConvNet's loss with the first block computed in one loop, forward and backward.

The maps of the first block are by far the largest, and `jvp.convnet_loss_jvp` stores several of them for its
backward pass. This module stores none. As in `fused`, instance normalisation of the first convolution is an
affine map of 3×3 patches, whose coefficients follow from the second moments of the patches. For one output
channel let w be the weights and v their tangent, p a patch, p̄ and Σ mean and covariance of the patches of an
image:

    z = wᵀp,  ż = vᵀp,  σ² = wᵀΣw + eps
    y = γ (z - z̄) / σ + β
    ẏ = γ ((ż - mean ż) / σ - (z - z̄) (wᵀΣv) / σ³) + γ̇ (z - z̄) / σ + β̇

So y and ẏ are affine in p, and one loop over patches computes the block's outputs, avg_pool(relu(y)) and
avg_pool(1[y > 0] ẏ). The backward pass recomputes the mask, for a few images at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsdistill.compute import fused
from dsdistill.compute.chunks import equal_chunk
from dsdistill.compute.jvp import Weights, convnet_loss_jvp
from dsdistill.networks.convnet import ConvNet
from dsdistill.networks.layers import ConvBlock
from dsdistill.runtime import compiler
from dsdistill.runtime.device import Precision, autocast
from dsdistill.runtime.notice import Notify, silent

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

_CHUNK = 24  # images per chunk of a backward pass, whose maps fit a CPU's cache

# Otherwise the compiler stores the mask of ReLU, a byte each, instead of computing it where it is used.
_INLINE: dict[str, Any] = dict.fromkeys(
    ("realize_opcount_threshold", "realize_reads_threshold", "realize_acc_reads_threshold"), 10**6
)


def _compiled(
    function: Callable[..., Any], notify: Notify, options: dict[str, Any] | None = None
) -> Callable[..., Any]:
    return compiler.with_fallback(compiler.compiled(function, options), function, notify)


class FusedJvp:
    """`jvp.loss_jvp` of one network that `fused.supports`, compiled."""

    def __init__(self, network: ConvNet, notify: Notify = silent, precision: Precision = "fp32") -> None:
        """Prepare; compiling itself happens at the first call, and at the first backward pass.

        Args:
            network: one that `fused.supports`.
            notify: receives a sentence if a compilation fails; the uncompiled code then takes its place.
            precision: of the convolutions after the first block.
        """
        block = network.blocks[0]
        assert isinstance(block, ConvBlock)
        assert isinstance(block.norm, nn.GroupNorm)
        self._padding = (int(block.conv.padding[0]),) * 4
        self._eps = block.norm.eps
        self._head = _Head(notify)

        def tail(
            weights: Weights, tangents: Weights, x: Tensor, x_tangent: Tensor, targets: Tensor
        ) -> Tensor:
            with autocast(x.device, precision):
                return convnet_loss_jvp(network, weights, tangents, x, x_tangent, targets, first=1)

        self._tail = _compiled(tail, notify)

    def __call__(
        self,
        weights: Weights,
        tangents: Weights,
        images: Float[Tensor, "B C H W"],
        targets: Int64[Tensor, " B"] | Float[Tensor, "B K"],
    ) -> Float[Tensor, ""]:
        """Return `jvp.loss_jvp` of the network, differentiable in the same arguments."""
        padded = F.pad(images, self._padding)
        value, tangent = self._head(padded, *coefficients(padded, weights, tangents, self._eps))
        return self._tail(weights, tangents, value.permute(0, 3, 1, 2), tangent.permute(0, 3, 1, 2), targets)


def coefficients(
    x: Float[Tensor, "B c H W"], weights: Weights, tangents: Weights, eps: float
) -> tuple[Float[Tensor, "B 9*c C"], Float[Tensor, "B C"], Float[Tensor, "B 9*c C"], Float[Tensor, "B C"]]:
    """Return weights [B, 9c, C] and offsets [B, C] of y as a map of each image's patches, then those of ẏ.

    Args:
        x: [B, c, H, W], padded for the convolution.
        weights, tangents: of the network, by name; only those of its first block are used.
        eps: of the normalisation.
    """
    conv, scale, shift = (f"blocks.0.{name}" for name in ("conv.weight", "norm.weight", "norm.bias"))
    patches = F.unfold(x, 3)  # [B, 9c, positions]
    mean = patches.mean(2)
    centred = patches - mean[:, :, None]
    covariance = torch.bmm(centred, centred.transpose(1, 2)) / patches.shape[2]
    w = weights[conv].flatten(1).T.contiguous()  # [9c, C]: loops over C read it in order
    covariance_w = covariance @ w
    rate = torch.rsqrt((covariance_w * w).sum(1) + eps)[:, None, :]  # 1 / σ, [B, 1, C]
    normal = w * rate
    value = normal * weights[scale]
    tangent = torch.zeros_like(value)
    if conv in tangents:
        v = tangents[conv].flatten(1).T.contiguous()
        product = (covariance_w * v).sum(1)[:, None, :]  # wᵀΣv
        tangent = (v - normal * rate * product) * rate * weights[scale]
    if scale in tangents:
        tangent = tangent + normal * tangents[scale]
    tangent_offset = -(mean[:, None, :] @ tangent)[:, 0]
    if shift in tangents:
        tangent_offset = tangent_offset + tangents[shift]
    return value, weights[shift] - (mean[:, None, :] @ value)[:, 0], tangent, tangent_offset


def dual(
    x: Float[Tensor, "B c H W"],
    weights: Float[Tensor, "B 9*c C"],
    offsets: Float[Tensor, "B C"],
    weights_tangent: Float[Tensor, "B 9*c C"],
    offsets_tangent: Float[Tensor, "B C"],
) -> tuple[Float[Tensor, "B h w C"], Float[Tensor, "B h w C"]]:
    """Return avg_pool(relu(y)) and avg_pool(1[y > 0] ẏ), each [B, H', W', C], from `coefficients`."""
    value = tangent = torch.zeros((), dtype=x.dtype)
    for taps in fused.corners(x):
        y = fused.affine(taps, weights, offsets)
        value = value + F.relu(y)
        tangent = tangent + torch.where(y > 0, fused.affine(taps, weights_tangent, offsets_tangent), 0)
    return 0.25 * value, 0.25 * tangent


def corner_grads(
    x: Float[Tensor, "B c H W"],
    weights: Float[Tensor, "B 9*c C"],
    offsets: Float[Tensor, "B C"],
    *outputs_grad: Float[Tensor, "B h w C"],
) -> list[list[Tensor]]:
    """Return the gradients to y and ẏ at each of the four positions, from those to both outputs of `dual`."""
    active = [fused.affine(taps, weights, offsets) > 0 for taps in fused.corners(x)]
    return [[torch.where(mask, 0.25 * grad, 0) for grad in outputs_grad] for mask in active]


class _Head:
    """`dual`, compiled, with a backward pass of a few images at a time."""

    def __init__(self, notify: Notify) -> None:
        self._dual = _compiled(dual, notify, _INLINE)
        self._corner_grads = _compiled(corner_grads, notify, _INLINE)

    def __call__(self, x: Tensor, *coefficients: Tensor) -> tuple[Tensor, Tensor]:
        return _Dual.apply(self, x, *coefficients)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self._dual(*inputs)

    def backward(self, inputs: tuple[Tensor, ...], outputs_grad: tuple[Tensor, ...]) -> list[Tensor]:
        """Return the gradients to x and the four coefficients."""
        size = equal_chunk(len(inputs[0]), _CHUNK)
        chunks = [tensor.split(size) for tensor in (*inputs, *outputs_grad)]
        grads = [self._backward_chunk(*chunk) for chunk in zip(*chunks, strict=True)]
        return [torch.cat(tensors) for tensors in zip(*grads, strict=True)]

    def _backward_chunk(
        self,
        x: Tensor,
        weights: Tensor,
        offsets: Tensor,
        weights_tangent: Tensor,
        _: Tensor,
        *outputs_grad: Tensor,
    ) -> list[Tensor]:
        height, width = x.shape[2] - 2, x.shape[3] - 2
        grads = self._corner_grads(x, weights, offsets, *outputs_grad)
        patches = F.unfold(x, 3)
        ones = torch.ones_like(patches[:, :1])  # an offset is the weight of a 1
        grid = torch.cat([patches, ones], 1).unflatten(2, (height, width))
        patches_grad = torch.zeros_like(grid[:, :-1])
        sums = [torch.zeros((), dtype=x.dtype)] * 2
        for corner, both in enumerate(grads):
            i, j = divmod(corner, 2)
            # no pooled value reads a last odd row or column
            at = slice(i, height // 2 * 2, 2), slice(j, width // 2 * 2, 2)
            taps = grid[:, :, *at].flatten(2)
            taps_grad = torch.zeros((), dtype=x.dtype)
            for which, (grad, weight) in enumerate(zip(both, (weights, weights_tangent), strict=True)):
                grad = grad.flatten(1, 2)  # [B, positions, C]
                sums[which] = sums[which] + torch.bmm(taps, grad)
                taps_grad = taps_grad + torch.bmm(weight, grad.transpose(1, 2))
            patches_grad[:, :, *at] = taps_grad.unflatten(2, (height // 2, width // 2))
        x_grad = F.fold(patches_grad.flatten(2), x.shape[2:], 3)
        return [x_grad, *(part for each in sums for part in (each[:, :-1], each[:, -1]))]


class _Dual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, head: _Head, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.head = head
        ctx.save_for_backward(*inputs)
        return head.forward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs_grad: Tensor) -> tuple[Tensor | None, ...]:
        contiguous = tuple(grad.contiguous() for grad in outputs_grad)
        return None, *ctx.head.backward(ctx.saved_tensors, contiguous)
