"""Passes of many images with a gradient, in the memory of a few images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.utils.checkpoint import checkpoint

from dsdistill.compute.embedder import Embedder
from dsdistill.networks.base import Chain, Network
from dsdistill.networks.wide import InputNormalised

if TYPE_CHECKING:
    from jaxtyping import Float


class _Recomputed(Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, embedder: Embedder, chunk: int) -> Tensor:
        ctx.save_for_backward(images)
        ctx.embedder, ctx.chunk = embedder, chunk
        return embedder.frozen(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs_grad: Tensor) -> tuple[Tensor | None, ...]:
        (images,), (grad,) = ctx.saved_tensors, outputs_grad
        parts = []
        for part, part_grad in zip(images.split(ctx.chunk), grad.split(ctx.chunk), strict=True):
            with torch.enable_grad():
                leaf = part.detach().requires_grad_()
                features = ctx.embedder.differentiable(leaf)
            parts.append(torch.autograd.grad(features, leaf, part_grad)[0])
        return torch.cat(parts), None, None


def features_of(embedder: Embedder, images: Float[Tensor, "B C H W"], chunk: int) -> Float[Tensor, "B D"]:
    """Embed images with a graph to them, of which no more than ``chunk`` are in a graph at once.

    Where there are more, they are embedded without a graph, and once more on the way back, part by part: the
    maps of all of them are never there together. The network must not change before the way back.

    Args:
        embedder: of a network that does not couple the samples of a batch, or else ``chunk`` holds them all.
        images: with a graph.
        chunk: images of a pass whose graph is kept.
    """
    if len(images) <= chunk:
        return embedder.differentiable(images)
    return _Recomputed.apply(images, embedder, chunk)


def is_parted(network: Network) -> bool:
    """Whether `logits_of` takes a network part by part: not where its norms follow convolutions."""
    return isinstance(network, Chain) and any(isinstance(each, InputNormalised) for each in network.blocks)


def logits_of(network: Network, images: Float[Tensor, "B C H W"], chunk: int) -> Float[Tensor, "B K"]:
    """Return ``network(images)`` with a graph to the weights, of little memory where that is possible.

    Whatever of a chain of blocks couples no samples is computed for at most ``chunk`` images at once, and
    once more on the way back. Batch normalisation sees the whole batch, once.
    """
    if len(images) <= chunk or not is_parted(network):
        return network(images)
    assert isinstance(network, Chain)
    x = images
    for block in network.blocks:
        if isinstance(block, InputNormalised):
            x = _in_parts(block.after_norm, block.norm(x), chunk)
        else:
            x = block(x)
    return network.classifier(network.neck(x))


def _in_parts(function: Callable[[Tensor], Tensor], x: Tensor, chunk: int) -> Tensor:
    """Apply a function to parts of a batch, whose graphs are made again on the way back."""
    parts = [
        checkpoint(function, part, use_reentrant=False, preserve_rng_state=False) for part in x.split(chunk)
    ]
    return torch.cat(parts)
