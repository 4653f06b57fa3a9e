"""The classification loss of one network and its derivatives, as fast as the device allows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from dsdistill.compute import fused, jvp
from dsdistill.compute.chunks import equal_chunk, images_per_bytes
from dsdistill.compute.fused_jvp import FusedJvp
from dsdistill.networks.base import Network
from dsdistill.networks.convnet import ConvNet
from dsdistill.objectives.precision import at_least_float32
from dsdistill.runtime import compiler
from dsdistill.runtime.device import Precision, autocast
from dsdistill.runtime.notice import Notify, silent

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

_CHUNK_BYTES = {"cpu": 1 << 25, "cuda": 1 << 30}  # of the largest map of a ConvNet


class Learner:
    """Mean cross-entropies of one module and their derivatives, compiled once.

    The module's weights may change in place between calls. Callers compute gradients one class at a time: on
    a CPU a loop over classes is faster than ``vmap`` over them (``benchmarks/speed.py perclass``), and the
    graph of one class bounds memory.

    Attributes:
        network: the module.
        chunk: images per pass when only a gradient to the weights is computed.
        compiled: whether passes are compiled, as far as is known before the first.
    """

    def __init__(
        self,
        network: Network,
        size: int,
        device: torch.device,
        precision: Precision = "fp32",
        compile: bool = False,
        chunk: int = 0,
        notify: Notify = silent,
        second_order: Precision = "fp32",
    ) -> None:
        """Prepare the functions; compiling itself happens at their first call.

        Args:
            network: on ``device``.
            size: height and width of the images.
            precision: of convolutions and maps in training and in gradients that are not ``exact``.
            compile: whether to use ``torch.compile``.
            chunk: see the class; 0 chooses by the device. If the network couples the samples of a batch, a
                batch is never split.
            notify: receives a sentence if something cannot be done as requested.
            second_order: precision of convolutions in `jvp`, and in gradients that are ``exact``. What
                torch's forward mode differentiates in `jvp`, and compiled on a CPU the first block of a
                ConvNet, are in the precision of the images.
        """
        self.network = network
        self.chunk = chunk or images_per_bytes(_CHUNK_BYTES[device.type], size)
        self.compiled = compile and compiler.why_unavailable(device) is None

        self._second_order = functools.partial(autocast, device, second_order)

        def compile_if_asked(function: Callable[..., Any]) -> Callable[..., Any]:
            return compiler.compile_or_eager(function, device, notify) if compile else function

        def weighted_loss(precision: Precision) -> Callable[..., Tensor]:
            def loss(weights: Mapping[str, Tensor], images: Tensor, targets: Tensor, share: Tensor) -> Tensor:
                with autocast(device, precision):
                    logits = functional_call(network, dict(weights), (images,))
                return (F.cross_entropy(at_least_float32(logits), targets, reduction="none") * share).sum()

            return loss

        def mean_loss_and_correct(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            with autocast(device, precision):
                logits = network(images)
            labels = targets.argmax(1) if targets.is_floating_point() else targets
            return F.cross_entropy(at_least_float32(logits), targets), (logits.argmax(1) == labels).sum()

        def mean_loss_and_logits(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            with autocast(device, precision):
                logits = at_least_float32(network(images))
            return F.cross_entropy(logits, targets), logits.detach()

        def loss_jvp(weights: Mapping[str, Tensor], tangents: Mapping[str, Tensor], *batch: Tensor) -> Tensor:
            with self._second_order():
                return jvp.loss_jvp(network, weights, tangents, *batch)

        self._uncompiled_loss = weighted_loss(precision)
        self._fast_loss = compile_if_asked(self._uncompiled_loss)
        self._exact_loss = self._fast_loss
        if precision != second_order:
            self._exact_loss = compile_if_asked(weighted_loss(second_order))
        self._mean_loss_and_correct = compile_if_asked(mean_loss_and_correct)
        self._mean_loss_and_logits = compile_if_asked(mean_loss_and_logits)
        # On a CPU the first block costs memory traffic; its cost on CUDA has not been measured.
        self._fused = self.compiled and device.type == "cpu" and fused.supports(network)
        if self._fused and isinstance(network, ConvNet):
            self._loss_jvp: Callable[..., Tensor] = FusedJvp(network, notify, second_order)
        else:
            self._loss_jvp = compile_if_asked(loss_jvp)
        self._uncompiled_loss_jvp = loss_jvp

    def loss(
        self, images: Float[Tensor, "B C H W"], targets: Int64[Tensor, " B"] | Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy with a graph to the network's own parameters.

        Args:
            images: [B, C, H, W] in network space.
            targets: int64 [B], or probabilities [B, K].
        """
        return self._mean_loss_and_correct(images, targets)[0]

    def loss_and_correct(
        self, images: Float[Tensor, "B C H W"], targets: Int64[Tensor, " B"] | Float[Tensor, "B K"]
    ) -> tuple[Float[Tensor, ""], Int64[Tensor, ""]]:
        """Return `loss`, and the number of correctly classified images (int64) with the present weights."""
        return self._mean_loss_and_correct(images, targets)

    def loss_and_logits(
        self, images: Float[Tensor, "B C H W"], targets: Int64[Tensor, " B"] | Float[Tensor, "B K"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B K"]]:
        """Return `loss`, and the logits without a graph, float32 or wider, with the present weights."""
        return self._mean_loss_and_logits(images, targets)

    def gradient(
        self,
        images: Float[Tensor, "B C H W"],
        targets: Int64[Tensor, " B"] | Float[Tensor, "B K"],
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
            names: of these parameters; no time is spent on others.
            weights: all parameters, in place of the network's own.
            exact: compute in the precision of second order, not in that of training.
            most: largest number of images of any such call, so that compiled code can serve classes of all
                sizes; 0 if all calls have the same number.
        """
        weights = self.weights(names, weights)
        parameters = [weights[name] for name in names]
        loss = self._exact_loss if exact else self._fast_loss
        coupled = self.network.couples_samples
        chunk = len(images) if coupled else self.chunk_size(max(most, len(images)))
        total: list[Tensor] = []
        for part, labels in zip(images.split(chunk), targets.split(chunk), strict=True):
            share = part.new_full((len(part),), 1 / len(images))
            missing = chunk - len(part) if self.compiled and not coupled else 0
            if missing:  # compiled code serves one batch size: repeat an image, with weight zero
                part = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])])
                labels = torch.cat([labels, labels[-1:].expand(missing, *labels.shape[1:])])
                share = F.pad(share, (0, missing))
            grads = torch.autograd.grad(loss(weights, part, labels, share), parameters)
            total = [a + b for a, b in zip(total, grads, strict=True)] if total else list(grads)
        return total

    def chunk_size(self, images: int) -> int:
        """Return the images per pass, of equal passes if possible, when the graph of a pass is stored."""
        return images if self.network.couples_samples else equal_chunk(images, self.chunk)

    def image_grad(
        self,
        images: Float[Tensor, "B C H W"],
        targets: Int64[Tensor, " B"] | Float[Tensor, "B K"],
        tangents: Mapping[str, Tensor],
    ) -> Float[Tensor, "B C H W"]:
        """Return the gradient to the images [B, C, H, W] of ``Σ tangent · gradient`` over the tangents.

        If the tangents are ∂D/∂g of a distance D between gradients, as constants, this is ∂D/∂images.
        """
        images = images.detach().requires_grad_()
        return torch.autograd.grad(self.jvp(images, targets, self.weights(()), tangents), images)[0]

    def jvp(
        self,
        images: Float[Tensor, "B C H W"],
        targets: Int64[Tensor, " B"] | Float[Tensor, "B K"],
        weights: Mapping[str, Tensor],
        tangents: Mapping[str, Tensor],
    ) -> Float[Tensor, ""]:
        """Return d/dε of the mean cross-entropy at ``weights + ε·tangents``; see `jvp.loss_jvp`.

        The result has a graph to the arguments that require a gradient.
        """
        # Without forward mode a gradient needs a graph, and compiled code is differentiable once only.
        loss_jvp = self._loss_jvp if jvp.has_forward_mode(self.network) else self._uncompiled_loss_jvp
        return loss_jvp(weights, tangents, images, targets)

    def uncompiled_loss(
        self,
        weights: Mapping[str, Tensor],
        images: Float[Tensor, "B C H W"],
        targets: Int64[Tensor, " B"] | Float[Tensor, "B K"],
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy with a graph, by code that is never compiled."""
        share = images.new_full((len(images),), 1 / len(images))
        return self._uncompiled_loss(weights, images, targets, share)

    def uncompiled_jvp(
        self,
        images: Float[Tensor, "B C H W"],
        targets: Int64[Tensor, " B"] | Float[Tensor, "B K"],
        weights: Mapping[str, Tensor],
        tangents: Mapping[str, Tensor],
    ) -> Float[Tensor, ""]:
        """Return a scalar with the graph of what `jvp` returns, by code that is never compiled.

        It is not the value of `jvp` where compiled code computes the first block in one loop, which keeps
        none of its maps: its outputs are zeros then.
        """
        network = self.network
        if not (self._fused and isinstance(network, ConvNet)):
            return self._uncompiled_loss_jvp(weights, tangents, images, targets)
        with torch.no_grad():
            shape = network.blocks[0](images[:1]).shape[1:]
        value, tangent = (0 * images.sum() + images.new_zeros(len(images), *shape) for _ in range(2))
        with self._second_order():
            return jvp.convnet_loss_jvp(network, weights, tangents, value, tangent, targets, first=1)

    def weights(
        self, names: Sequence[str], explicit: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the network's parameters, or ``explicit`` ones, detached; ``names`` require a gradient."""
        return {
            name: parameter.detach().requires_grad_(name in names)
            for name, parameter in (explicit or dict(self.network.named_parameters())).items()
        }
