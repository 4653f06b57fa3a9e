"""What trained networks say of real images that a set may start from."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from dsdistill.errors import UserError


class TrainedNetworks(ABC):
    """Trained networks that real images are selected by.

    Attributes:
        count: the number of networks.
    """

    count: int

    @abstractmethod
    def logits(self, network: int, images: Tensor) -> Tensor:
        """Classify images [n, C, H, W] in network space -> float32 [n, K], on the CPU, without a graph."""

    def activation(self, network: int, images: Tensor, labels: Tensor) -> Tensor:
        """Return where a network sees the class of each image: see `dsdistill.objectives.cam`.

        Args:
            network: its number.
            images: float [n, C, S, S] in network space.
            labels: int64 [n].

        Returns:
            float32 [n, S, S] in [0, 1], on the CPU.

        Raises:
            UserError: the network has no such maps, or these networks are asked for logits only.
        """
        raise UserError(
            "class activation maps are of teachers, and this method has other networks: use an engine of "
            "kind decoupled, or set patches.keep=confidence"
        )

    def difficulty(self) -> Tensor:
        """Return how hard each training image was for the networks while they were trained, float32 [N].

        Raises:
            UserError: their files do not say.
        """
        raise UserError("the files of these networks do not say how hard each image was")
