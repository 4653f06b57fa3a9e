"""Embeds images with a network whose weights are replaced between calls, as fast as the device allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.compute import fused
from dsdistill.compute.chunks import images_per_bytes
from dsdistill.networks.base import Network
from dsdistill.networks.convnet import ConvNet
from dsdistill.objectives.precision import at_least_float32
from dsdistill.runtime import compiler
from dsdistill.runtime.device import Precision, autocast
from dsdistill.runtime.notice import Notify, once, silent

if TYPE_CHECKING:
    from jaxtyping import Float

_CHUNK_BYTES = {"cpu": 1 << 24, "cuda": 1 << 30}  # of the largest map of a ConvNet: the CPU's fits its cache
_SIZES = 6  # of compiled passes: torch compiles for eight sizes, then no more


class Embedder:
    """``network.embed``, or other features, of one frozen module, compiled once, in one precision.

    Attributes:
        network: the module; its weights may change in place between calls, its requires_grad may not.
        chunk: images per pass without a gradient.
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
        features: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Prepare the functions; compiling itself happens at their first call.

        Args:
            network: on ``device``, with frozen parameters.
            size: height and width of the images.
            precision: of convolutions and of the maps between them; embeddings are float32 in any case.
            compile: whether to use ``torch.compile``.
            chunk: images per pass without a gradient; 0 chooses by the device. If the network couples the
                samples of a batch, a batch is never split.
            notify: receives a sentence if something cannot be done as requested.
            features: another function of the images and the network's weights, to vectors [B, D], in place of
                ``network.embed``. It couples samples only if the network does.
        """
        self.network = network
        self.chunk = chunk or images_per_bytes(_CHUNK_BYTES[device.type], size)
        self._device = device
        self._precision = precision
        self._compiled = compile and compiler.can_compile(device, notify)
        self._features: Callable[[Tensor], Tensor] = features or network.embed
        self._embed = self._features
        self._embed_frozen: Callable[[Tensor], Tensor] = self._cast_embed
        if self._compiled:
            notify = once(notify)
            self._embed = compiler.compile_or_eager(self._embed, device, notify)
            # Measured on the CPU only; CUDA uses the library's kernels.
            fusible = features in (None, network.embed) and fused.supports(network)
            if device.type == "cpu" and isinstance(network, ConvNet) and fusible:
                self._embed_frozen = compiler.with_fallback(self._fused(network), self._cast_embed, notify)

    def differentiable(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Embed [B, C, H, W] with a graph to the images -> [B, D], at least float32."""
        return self._cast_embed(images)

    def frozen(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Embed [B, C, H, W] without a graph, at most ``chunk`` images a pass -> [B, D], at least float32."""
        size = self.pass_size(len(images))
        with torch.inference_mode():
            parts = [self._embed_frozen(self._padded(part, size))[: len(part)] for part in images.split(size)]
            features = torch.cat(parts)
        return features.clone()  # a normal tensor, so that losses may save it for their gradient

    def uncompiled(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Embed as `differentiable` does, by code that is never compiled: for any number of images."""
        with autocast(self._device, self._precision):
            return at_least_float32(self._features(images))

    def pass_size(self, images: int) -> int:
        """Return the images per pass: if compiled, one of few sizes, with little padding of the last pass."""
        if self.network.couples_samples:
            return images
        if not self._compiled:
            return self.chunk
        passes, step = -(-images // self.chunk), -(-self.chunk // _SIZES)
        return min(self.chunk, -(-images // (passes * step)) * step)

    def _padded(self, part: Tensor, size: int) -> Tensor:
        """Repeat the last image up to the size of a pass, as compiled code serves one batch size."""
        missing = size - len(part) if self._compiled else 0
        return torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part

    def _cast_embed(self, images: Tensor) -> Tensor:
        with autocast(self._device, self._precision):
            features = self._embed(images)
        return at_least_float32(features)

    def _fused(self, network: ConvNet) -> Callable[[Tensor], Tensor]:
        dtype = torch.bfloat16 if self._precision == "bf16" else torch.float32
        first = network.blocks[0]
        padding = (int(first.conv.padding[0]),) * 4  # type: ignore[union-attr, index]

        def head_loop(x: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
            return fused.head(x, weights, offsets).to(dtype)

        head = compiler.compiled(head_loop)
        tail = compiler.compiled(lambda x: fused.tail(network, x))

        def embed(images: Tensor) -> Tensor:
            padded = F.pad(images, padding)
            # Not compiled: inside the loops, moments would be inlined and computed at every pixel.
            weights, offsets = fused.moments(first, padded)  # type: ignore[arg-type]
            return tail(head(padded, weights, offsets)).float()

        return embed
