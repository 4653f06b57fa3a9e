"""The directional derivative of a ConvNet's loss with its first block in one loop, there and back.

The maps of the first block are by far the largest, and `tangent.through_convnet` keeps several of them for
its backward pass. They need not exist: as in `fused`, instance normalisation of the first convolution is an
affine map of 3×3 patches whose coefficients follow from the patches' second moments. With w the weights and v
their direction for one output channel, p a patch, p̄ and Σ mean and covariance of an image's patches:

    z = wᵀp,  ż = vᵀp,  σ² = wᵀΣw + eps
    y = γ (z - z̄) / σ + β
    ẏ = γ ((ż - mean ż) / σ - (z - z̄) (wᵀΣv) / σ³) + γ̇ (z - z̄) / σ + β̇

so that y and ẏ are affine in p, and the block's outputs, avg_pool(relu(y)) and avg_pool(1[y > 0] ẏ), are one
loop over patches. Backward computes the mask again and stores no more than what a few images need.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsdistill.compute import fused
from dsdistill.compute.chunks import equal_chunk
from dsdistill.compute.jvp import Weights, through_convnet
from dsdistill.networks.convnet import ConvNet
from dsdistill.networks.layers import ConvBlock
from dsdistill.runtime import compiler
from dsdistill.runtime.notice import Notify

_CHUNK = 24  # images whose maps exist at once in a backward pass: they stay in a CPU's cache

# The compiler would store the mask of ReLU, byte by byte, instead of computing it where it is used.
_INLINE: dict[str, Any] = dict.fromkeys(
    ("realize_opcount_threshold", "realize_reads_threshold", "realize_acc_reads_threshold"), 10**6
)


def _compiled(
    function: Callable[..., Any], notify: Notify, options: dict[str, Any] | None = None
) -> Callable[..., Any]:
    return compiler.with_fallback(torch.compile(function, dynamic=False, options=options), function, notify)


class FusedJvp:
    """`tangent.directional` for one network that `fused.supports`, compiled."""

    def __init__(self, network: ConvNet, notify: Notify = print) -> None:
        """Prepare; compiling itself happens at the first call, and at the first backward pass.

        Args:
            network: one that `fused.supports`.
            notify: receives a sentence where a compilation fails, and the eager code takes its place.
        """
        block = network.blocks[0]
        assert isinstance(block, ConvBlock)
        assert isinstance(block.norm, nn.GroupNorm)
        self._padding = (int(block.conv.padding[0]),) * 4
        self._eps = block.norm.eps
        self._head = _Head(notify)

        def rest(weights: Weights, tangents: Weights, x: Tensor, t: Tensor, targets: Tensor) -> Tensor:
            return through_convnet(network, weights, tangents, x, t, targets, first=1)

        self._rest = _compiled(rest, notify)

    def __call__(self, weights: Weights, tangents: Weights, images: Tensor, targets: Tensor) -> Tensor:
        """Return what `tangent.directional` returns, differentiable to the same."""
        padded = F.pad(images, self._padding)
        value, change = self._head(padded, *coefficients(padded, weights, tangents, self._eps))
        return self._rest(weights, tangents, value.permute(0, 3, 1, 2), change.permute(0, 3, 1, 2), targets)


def coefficients(
    x: Tensor, weights: Weights, tangents: Weights, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return y's weights [B, 9c, C] and offsets [B, C] per patch of each image, then ẏ's.

    Args:
        x: [B, c, H, W], padded for the convolution.
        weights, tangents: of the network by name; those of its first block are read.
        eps: of the normalisation.
    """
    conv, scale, shift = (f"blocks.0.{name}" for name in ("conv.weight", "norm.weight", "norm.bias"))
    patches = F.unfold(x, 3)  # [B, 9c, positions]
    mean = patches.mean(2)
    centred = patches - mean[:, :, None]
    covariance = torch.bmm(centred, centred.transpose(1, 2)) / patches.shape[2]
    w = weights[conv].flatten(1).T.contiguous()  # [9c, C]: loops over C read it in order
    seen = covariance @ w
    rate = torch.rsqrt((seen * w).sum(1) + eps)[:, None, :]  # 1 / σ, [B, 1, C]
    normal = w * rate
    value = normal * weights[scale]
    change = torch.zeros_like(value)
    if conv in tangents:
        v = tangents[conv].flatten(1).T.contiguous()
        shared = (seen * v).sum(1)[:, None, :]  # wᵀΣv
        change = (v - normal * rate * shared) * rate * weights[scale]
    if scale in tangents:
        change = change + normal * tangents[scale]
    offset = -(mean[:, None, :] @ change)[:, 0]
    if shift in tangents:
        offset = offset + tangents[shift]
    return value, weights[shift] - (mean[:, None, :] @ value)[:, 0], change, offset


def dual(x: Tensor, weights: Tensor, offsets: Tensor, moved: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
    """Return avg_pool(relu(y)) and avg_pool(1[y > 0] ẏ), each [B, H', W', C], from `coefficients`."""
    value = change = torch.zeros((), dtype=x.dtype)
    for seen in fused.corners(x):
        y = fused.affine(seen, weights, offsets)
        value = value + F.relu(y)
        change = change + torch.where(y > 0, fused.affine(seen, moved, shifts), 0)
    return 0.25 * value, 0.25 * change


def masked(x: Tensor, weights: Tensor, offsets: Tensor, *slopes: Tensor) -> list[list[Tensor]]:
    """Return what reaches y and ẏ at each of the four positions, of slopes [B, H', W', C] of both outputs."""
    active = [fused.affine(seen, weights, offsets) > 0 for seen in fused.corners(x)]
    return [[torch.where(mask, 0.25 * slope, 0) for slope in slopes] for mask in active]


class _Head:
    """`dual`, compiled, with a backward pass that goes through a few images at a time."""

    def __init__(self, notify: Notify) -> None:
        self._dual = _compiled(dual, notify, _INLINE)
        self._masked = _compiled(masked, notify, _INLINE)

    def __call__(self, x: Tensor, *coefficients: Tensor) -> tuple[Tensor, Tensor]:
        return _Dual.apply(self, x, *coefficients)

    def forth(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self._dual(*inputs)

    def back(self, inputs: tuple[Tensor, ...], slopes: tuple[Tensor, ...]) -> list[Tensor]:
        """Return the gradients to x and the four coefficients."""
        size = equal_chunk(len(inputs[0]), _CHUNK)
        parts = [each.split(size) for each in (*inputs, *slopes)]
        found = [self._part(*part) for part in zip(*parts, strict=True)]
        return [torch.cat(each) for each in zip(*found, strict=True)]

    def _part(
        self, x: Tensor, weights: Tensor, offsets: Tensor, moved: Tensor, _: Tensor, *slopes: Tensor
    ) -> list[Tensor]:
        height, width = x.shape[2] - 2, x.shape[3] - 2
        reached = self._masked(x, weights, offsets, *slopes)
        patches = F.unfold(x, 3)
        ones = torch.ones_like(patches[:, :1])  # an offset is the weight of a 1
        grid = torch.cat([patches, ones], 1).unflatten(2, (height, width))
        to_patches = torch.zeros_like(grid[:, :-1])
        sums = [torch.zeros((), dtype=x.dtype)] * 2
        for corner, both in enumerate(reached):
            i, j = divmod(corner, 2)
            # a last odd row or column reaches no pooled value
            at = slice(i, height // 2 * 2, 2), slice(j, width // 2 * 2, 2)
            seen = grid[:, :, *at].flatten(2)
            back = torch.zeros((), dtype=x.dtype)
            for which, (slope, weight) in enumerate(zip(both, (weights, moved), strict=True)):
                slope = slope.flatten(1, 2)  # [B, positions, C]
                sums[which] = sums[which] + torch.bmm(seen, slope)
                back = back + torch.bmm(weight, slope.transpose(1, 2))
            to_patches[:, :, *at] = back.unflatten(2, (height // 2, width // 2))
        to_x = F.fold(to_patches.flatten(2), x.shape[2:], 3)
        return [to_x, *(part for each in sums for part in (each[:, :-1], each[:, -1]))]


class _Dual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, head: _Head, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.head = head
        ctx.save_for_backward(*inputs)
        return head.forth(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        contiguous = tuple(slope.contiguous() for slope in slopes)
        return None, *ctx.head.back(ctx.saved_tensors, contiguous)
