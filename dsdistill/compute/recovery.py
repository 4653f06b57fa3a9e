"""A trained network as images are recovered from it: its logits, and how far off its statistics are.

Yin et al. (SRe2L, NeurIPS 2023) align the inputs of every batch normalisation with its running statistics:

    r = ‖v - v̂‖₂ + ‖μ - μ̂‖₂,    μ, v: mean and biased variance of a batch over images and places.

Batches are independent of each other where the network is in evaluation mode. So several of them go through
it together, each with statistics of its own: gradients are those of separate passes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from dsdistill.compute.memory_format import differentiable_innermost
from dsdistill.networks.base import Network
from dsdistill.objectives.precision import at_least_float32
from dsdistill.runtime import compiler
from dsdistill.runtime.device import Precision, autocast
from dsdistill.runtime.notice import Notify, silent

if TYPE_CHECKING:
    from jaxtyping import Float

Statistics = Sequence[tuple[Tensor, Tensor]]
"""Mean and variance for each layer of batch normalisation, [K], or [G, K] for each of G batches."""


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """What a network says of G batches of B images.

    Attributes:
        logits: float [G·B, classes].
        embedding: float [G·B, D], the input of the classifier.
        maps: of the blocks, [G·B, c, h, w] each; empty unless asked for.
        alignment: float [layers, G], r of every batch normalisation in the order in which they compute.
    """

    logits: Tensor
    embedding: Tensor
    maps: Sequence[Tensor]
    alignment: Tensor


class RecoveryNetwork:
    """A frozen network whose batch normalisation also tells how far a batch's statistics are from its own.

    Attributes:
        layers: layers of batch normalisation of maps that compute something, at most those there are.
    """

    def __init__(
        self,
        network: Network,
        channels: int,
        size: int,
        precision: Precision = "fp32",
        compile: bool = False,
        notify: Notify = silent,
    ) -> None:
        """Copy the network.

        Args:
            network: on its device, in eval mode, without gradients of its weights. It is not changed.
            channels, size: of the images.
            precision: of convolutions and of the maps between them.
            compile: whether to use ``torch.compile``.
            notify: receives a sentence if that fails.
        """
        self._network = copy.deepcopy(network).eval().requires_grad_(False)
        self._heard: list[Tensor] = []
        self._normalisations = list(_replaced(self._network, self._heard))
        first = next(self._network.parameters())
        self._device, self._precision = first.device, precision
        if self._device.type == "cpu" and differentiable_innermost(self._network):
            self._network = self._network.to(memory_format=torch.channels_last)
        self._run = self._plain
        if compile:
            self._run = compiler.compile_or_eager(self._plain, self._device, notify)
        with torch.no_grad():
            probe = torch.zeros(2, channels, size, size).to(first)
            self._firing = self._order(probe)
        self.layers = len(self._firing)

    @property
    def statistics(self) -> list[tuple[Tensor, Tensor]]:
        """Running mean and variance of every layer that computes something, in their order."""
        return [(each.mean, each.variance) for each in self._firing]

    def __call__(
        self,
        images: Float[Tensor, "n C S S"],
        groups: int,
        statistics: Statistics | None = None,
        maps: bool = False,
    ) -> NetworkOutput:
        """Pass ``groups`` batches of equally many images, batch by batch.

        Args:
            images: float [G·B, C, S, S] in network space, on the device.
            groups: G.
            statistics: to align with, in place of the running ones; as many as there are layers.
            maps: whether to return the maps of the blocks.
        """
        targets = self.statistics if statistics is None else statistics
        with autocast(self._device, self._precision):
            logits, embedding, blocks, alignment = self._run(images, groups, list(targets), maps)
        return NetworkOutput(at_least_float32(logits), at_least_float32(embedding), blocks, alignment)

    @torch.no_grad()
    def population(self, parts: Iterable[Float[Tensor, "n C S S"]]) -> list[tuple[Tensor, Tensor]]:
        """Return mean and biased variance, [K] each, of the input of every layer over all images and places.

        Args:
            parts: images as they are passed at once; not empty.
        """
        of_layers = [_Moments() for _ in self._firing]
        handles = [
            layer.register_forward_pre_hook(partial(_heard_by, moments))
            for layer, moments in zip(self._firing, of_layers, strict=True)
        ]
        try:
            for images in parts:
                with autocast(self._device, self._precision):
                    self._plain(images, 1, self.statistics, maps=False)
        finally:
            for handle in handles:
                handle.remove()
        return [
            (moments.mean.to(layer.mean), moments.variance.to(layer.mean))
            for layer, moments in zip(self._firing, of_layers, strict=True)
        ]

    def _plain(
        self, images: Tensor, groups: int, statistics: list[tuple[Tensor, Tensor]], maps: bool
    ) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        for normalisation, target in zip(self._firing, statistics, strict=True):
            normalisation.groups, normalisation.target = groups, target
        self._heard.clear()
        if maps:
            blocks, embedding = self._network.trace(images)
        else:
            blocks, embedding = [], self._network.embed(images)
        logits = self._network.classifier(embedding)
        alignment = torch.stack(self._heard) if self._heard else images.new_zeros(0, groups)
        self._heard.clear()
        return logits, embedding, blocks, alignment

    def _order(self, images: Tensor) -> list[_AligningNorm]:
        """Return the layers that compute something, in the order in which they do."""
        firing: list[_AligningNorm] = []
        handles = [
            each.register_forward_hook(lambda module, *_: firing.append(module))
            for each in self._normalisations
        ]
        self._network(images)
        for handle in handles:
            handle.remove()
        self._heard.clear()
        return firing


def _replaced(network: nn.Module, heard: list[Tensor]) -> Sequence[_AligningNorm]:
    """Replace every batch normalisation of maps that has running statistics."""
    layers = []
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d | nn.SyncBatchNorm) and child.running_mean is not None:
                layers.append(_AligningNorm(child, heard))
                setattr(parent, name, layers[-1])
    return layers


class _Moments:
    """Mean and biased variance of each channel over all maps so far, in float64."""

    def __init__(self) -> None:
        self.values = 0
        self.mean = self.variance = torch.zeros((), dtype=torch.float64)

    def add(self, maps: Tensor) -> None:
        """Add maps [n, K, h, w]: variance within both parts, and between their means."""
        variance, mean = torch.var_mean(at_least_float32(maps), (0, 2, 3), correction=0)
        variance, mean, values = variance.double().cpu(), mean.double().cpu(), maps.numel() // maps.shape[1]
        share = values / (self.values + values)
        apart = mean - self.mean
        self.variance = (1 - share) * self.variance + share * variance + share * (1 - share) * apart**2
        self.mean = self.mean + share * apart
        self.values += values


def _heard_by(moments: _Moments, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    moments.add(inputs[0])


class _AligningNorm(nn.Module):
    """Batch normalisation by running statistics, which also tells the distance of each batch's from them."""

    mean: Tensor
    variance: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, norm: _BatchNorm, heard: list[Tensor]) -> None:
        super().__init__()
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        weight = torch.ones_like(mean) if norm.weight is None else norm.weight.detach()
        bias = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach()
        scale = weight / (variance + norm.eps).sqrt()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("variance", variance.clone())
        self.register_buffer("scale", scale)
        self.register_buffer("shift", bias - mean * scale)
        self.groups, self.target = 1, (self.mean, self.variance)
        self._heard = heard

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [G·B, K, h, w]."""
        y, distance = _Align.apply(x, self.groups, *self.target, self.scale, self.shift)
        self._heard.append(distance)
        return y


class _Align(Function):
    """Normalisation and alignment, whose gradients need one pass over the map."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, groups: int, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        batches = at_least_float32(x).unflatten(0, (groups, -1))
        batch_variance, batch_mean = torch.var_mean(batches, (1, 3, 4), correction=0)
        off_mean, off_variance = batch_mean - mean, batch_variance - variance
        lengths = off_mean.norm(dim=1, keepdim=True), off_variance.norm(dim=1, keepdim=True)
        ctx.groups = groups
        # A distance of 0 has no direction; like torch's norm, it then has no gradient.
        units = [
            torch.where(length > 0, off / length, torch.zeros_like(off))
            for off, length in zip((off_mean, off_variance), lengths, strict=True)
        ]
        ctx.save_for_backward(x, batch_mean, *units, scale)
        y = torch.addcmul(_on_maps(shift.to(x.dtype)), x, _on_maps(scale.to(x.dtype)))
        return y, (lengths[0] + lengths[1])[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        to_y, to_distance = grads
        x, mean, to_mean, to_variance, scale = ctx.saved_tensors
        places = x.numel() // (x.shape[1] * ctx.groups)
        slope = 2 * to_variance * to_distance[:, None] / places
        offset = to_mean * to_distance[:, None] / places - mean * slope
        batches = x.unflatten(0, (ctx.groups, -1))
        slope, offset = (_on_maps(each.to(x.dtype))[:, None] for each in (slope, offset))
        grad = torch.addcmul(offset, batches, slope).flatten(0, 1)
        return grad.addcmul(to_y, _on_maps(scale.to(x.dtype))), None, None, None, None, None


def _on_maps(values: Tensor) -> Tensor:
    """Return [..., K] as [..., K, 1, 1]."""
    return values[..., None, None]
