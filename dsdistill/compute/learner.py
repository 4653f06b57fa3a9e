"""The classification loss of one network: trained on, and differentiated, as fast as the device allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from dsdistill.compute import fused, jvp
from dsdistill.compute.chunks import equal_chunk, images_per_bytes
from dsdistill.compute.fused_jvp import FusedJvp
from dsdistill.networks.base import Network
from dsdistill.networks.convnet import ConvNet
from dsdistill.runtime import compiler
from dsdistill.runtime.device import Precision, autocast
from dsdistill.runtime.notice import Notify

_CHUNK_BYTES = {"cpu": 1 << 25, "cuda": 1 << 30}  # of the largest map of a ConvNet


class Learner:
    """Mean cross-entropies of one module and their derivatives, compiled once.

    The module's weights may change in place between calls. Gradients of classes are asked for one class at a
    time: on a CPU a loop over classes measured faster than ``vmap`` over them (``benchmarks/speed.py
    perclass``), and holding the graph of one class bounds memory.

    Attributes:
        network: the module.
        chunk: images whose graph is held at once where only a gradient to the weights is asked for.
    """

    def __init__(
        self,
        network: Network,
        size: int,
        device: torch.device,
        precision: Precision = "fp32",
        compile: bool = False,
        chunk: int = 0,
        notify: Notify = print,
    ) -> None:
        """Prepare the functions; compiling itself happens at their first call.

        Args:
            network: on ``device``.
            size: height and width of the images.
            precision: of convolutions and maps in training and in gradients that are not ``exact``.
            compile: whether to use ``torch.compile``.
            chunk: see the class; 0 chooses by the device. A network that couples the samples of a batch is
                never split.
            notify: receives a sentence where something asked for cannot be had.
        """
        self.network = network
        self.chunk = chunk or images_per_bytes(_CHUNK_BYTES[device.type], size)
        self._compiled = compile and compiler.why_unavailable(device) is None

        def prepared(function: Callable[..., Any]) -> Callable[..., Any]:
            return compiler.compile_or_eager(function, device, notify) if compile else function

        def shared(precision: Precision) -> Callable[..., Tensor]:
            def loss(weights: Mapping[str, Tensor], images: Tensor, targets: Tensor, share: Tensor) -> Tensor:
                with autocast(device, precision):
                    logits = functional_call(network, dict(weights), (images,))
                return (F.cross_entropy(_wide(logits), targets, reduction="none") * share).sum()

            return prepared(loss)

        def mean(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            with autocast(device, precision):
                logits = network(images)
            labels = targets.argmax(1) if targets.is_floating_point() else targets
            return F.cross_entropy(_wide(logits), targets), (logits.argmax(1) == labels).sum()

        def moving(weights: Mapping[str, Tensor], tangents: Mapping[str, Tensor], *batch: Tensor) -> Tensor:
            return jvp.loss_jvp(network, weights, tangents, *batch)

        self._exact = shared("fp32")
        self._fast = self._exact if precision == "fp32" else shared(precision)
        self._mean = prepared(mean)
        # On a CPU what the first block costs is memory traffic; what it costs on CUDA has not been measured.
        fusible = self._compiled and device.type == "cpu" and fused.supports(network)
        if fusible and isinstance(network, ConvNet):
            self._moving: Callable[..., Tensor] = FusedJvp(network, notify)
        else:
            self._moving = prepared(moving)
        self._moving_eagerly = moving

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy with a graph to the network's own parameters.

        Args:
            images: [B, C, H, W] in network space.
            targets: int64 [B], or probabilities [B, K].
        """
        return self._mean(images, targets)[0]

    def loss_and_correct(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return `loss` and how many images were classified correctly, int64, before any step."""
        return self._mean(images, targets)

    def gradient(
        self,
        images: Tensor,
        targets: Tensor,
        names: Sequence[str],
        *,
        weights: Mapping[str, Tensor] | None = None,
        exact: bool = False,
        most: int = 0,
    ) -> list[Tensor]:
        """Return the gradient of the mean cross-entropy to some parameters, without a graph.

        Args:
            images: [B, C, H, W] in network space.
            targets: int64 [B], or probabilities [B, K].
            names: of the parameters; no work is spent on others.
            weights: all parameters, in place of the network's own.
            exact: compute in the images' own precision, whatever the learner's.
            most: images that any such call may bring, so that compiled code can serve classes of all sizes;
                0 where all bring as many.
        """
        weights = self.weights(names, weights)
        wanted = [weights[name] for name in names]
        loss = self._exact if exact else self._fast
        coupled = self.network.couples_samples
        chunk = len(images) if coupled else self.part(max(most, len(images)))
        total: list[Tensor] = []
        for part, labels in zip(images.split(chunk), targets.split(chunk), strict=True):
            share = part.new_full((len(part),), 1 / len(images))
            missing = chunk - len(part) if self._compiled and not coupled else 0
            if missing:  # compiled code serves one batch size: repeat an image, and let it count nothing
                part = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])])
                labels = torch.cat([labels, labels[-1:].expand(missing, *labels.shape[1:])])
                share = F.pad(share, (0, missing))
            found = torch.autograd.grad(loss(weights, part, labels, share), wanted)
            total = [a + b for a, b in zip(total, found, strict=True)] if total else list(found)
        return total

    def part(self, images: int) -> int:
        """Return how many of so many images go through the network at once where their graph is held."""
        return images if self.network.couples_samples else equal_chunk(images, self.chunk)

    def image_grad(self, images: Tensor, targets: Tensor, tangents: Mapping[str, Tensor]) -> Tensor:
        """Return the gradient to the images [B, C, H, W] of ``Σ tangent · gradient`` over the tangents given.

        With the tangents ∂D/∂g of a distance D between gradients, held constant, this is ∂D/∂images.
        """
        images = images.detach().requires_grad_()
        return torch.autograd.grad(self.jvp(images, targets, self.weights(()), tangents), images)[0]

    def jvp(
        self, images: Tensor, targets: Tensor, weights: Mapping[str, Tensor], tangents: Mapping[str, Tensor]
    ) -> Tensor:
        """Return d/dε of the mean cross-entropy at ``weights + ε·tangents``; see `tangent.directional`.

        It has a graph to those of its arguments that require a gradient.
        """
        # Where a graph of the gradient is made, compiled code could not be differentiated again.
        moving = self._moving if jvp.has_forward_mode(self.network) else self._moving_eagerly
        return moving(weights, tangents, images, targets)

    def weights(self, names: Sequence[str], given: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the network's parameters, or those given, detached; those named require a gradient."""
        return {
            name: parameter.detach().requires_grad_(name in names)
            for name, parameter in (given or dict(self.network.named_parameters())).items()
        }


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
