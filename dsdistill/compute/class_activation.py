"""Class activation maps of a trained network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.objectives.cam import class_activation


class ClassActivation:
    """Tells where a network sees the class of an image: see `dsdistill.objectives.cam`.

    Its classifier has to read the mean of its last map over places, as those of residual networks do.
    """

    def __init__(self, network: Network, name: str, channels: int, size: int) -> None:
        """Check that the network is of that kind.

        Args:
            network: on its device, in eval mode.
            name: of the network, for messages.
            channels, size: of the images.

        Raises:
            UserError: it has no such classifier, or its last map has one place only.
        """
        self._network, self._size = network, size
        like = next(network.parameters())
        probe = torch.linspace(-1, 1, 2 * channels * size**2).view(2, channels, size, size)
        with torch.no_grad():
            maps, embedding = network.trace(probe.to(like))
        pooled = maps[-1].mean((2, 3))
        if pooled.shape != embedding.shape or not torch.allclose(pooled, embedding, rtol=1e-3, atol=1e-5):
            raise UserError(
                f"{name} has no global average pooling before its classifier, so it has no class activation "
                "maps: pass another network, such as resnet18-batch"
            )
        if not isinstance(network.classifier, nn.Linear):
            raise UserError(
                f"the classifier of {name} is no linear layer, so it has no class activation maps: pass "
                "another network, such as resnet18-batch"
            )
        if maps[-1].shape[-1] == 1:
            raise UserError(
                f"the last map of {name} has one place only for images of {size}x{size}, so its class "
                f"activation maps are blank: pass larger images (--size {2 * size}) or another network"
            )
        self._weight = network.classifier.weight

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the map of each image's class.

        Args:
            images: float [n, C, S, S] in network space.
            labels: int64 [n].

        Returns:
            float32 [n, S, S] in [0, 1], on the CPU.
        """
        parts = [
            self._of(some, of) for some, of in zip(images.split(_CHUNK), labels.split(_CHUNK), strict=True)
        ]
        return torch.cat(parts)

    def _of(self, images: Tensor, labels: Tensor) -> Tensor:
        weight = self._weight
        maps, _ = self._network.trace(images.to(weight.device, weight.dtype))
        return class_activation(maps[-1], weight[labels.to(weight.device)], self._size).float().cpu()


_CHUNK = 256
