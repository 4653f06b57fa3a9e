"""How hard each training image is, from what a network answers to it while it is trained."""

from __future__ import annotations

import torch
from torch import Tensor

from dsdistill.data.selection import el2n


class Difficulty:
    """The mean EL2N of every training image over the first epochs of one expert.

    A score is that of the image as it is trained on, augmented, with the weights before the step.

    Attributes:
        scores: float32 [N] on the device; the share of the epochs so far, which is the mean after the last.
    """

    def __init__(self, images: int, epochs: int, device: torch.device) -> None:
        """Start at zero.

        Args:
            images: N.
            epochs: to take the mean over; each has every image once.
            device: that computes.
        """
        self._epochs = epochs
        self.scores = torch.zeros(images, device=device)

    def add(self, rows: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add the scores of a batch.

        Args:
            rows: int64 [B], positions of the images, each of them once.
            logits: float32 [B, K] on the device.
            labels: int64 [B] on the device, the classes of the images.
        """
        places = rows.to(self.scores.device, non_blocking=True)
        self.scores.index_add_(0, places, el2n(logits[None], labels) / self._epochs)
