"""Real images that students are trained on, in network space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import RealDataset

RESIDENT_BYTES = 1 << 30
"""Real images that take no more in network space are kept there; others are brought there batch by batch."""
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class RealImages:
    """Real images by position, each batch of which is preprocessed when it is asked for.

    Attributes:
        real: the images as bytes, which may be in a file.
        preprocess: from unit space to network space, on the device.
        device: where the batches are.
    """

    real: RealDataset
    preprocess: Preprocess
    device: torch.device

    def __len__(self) -> int:
        return len(self.real)

    @property
    def shape(self) -> torch.Size:
        """N, C, H, W."""
        return self.real.images.shape

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Return images at some positions, int64 [n]: float32 [n, C, H, W]."""
        return self.preprocess(self.real.unit(rows).to(self.device))

    def to(self, device: torch.device) -> RealImages:
        """Return the same images with their batches on another device."""
        return RealImages(self.real.resident_on(device), self.preprocess.to(device), device)


def in_network_space(real: RealDataset, rows: Tensor | None, preprocess: Preprocess) -> Tensor | RealImages:
    """Return real images in network space, on the CPU.

    Args:
        real: the images.
        rows: int64 [n], the positions of some; None for all, which may be too many to be kept there.
        preprocess: on the CPU.

    Returns:
        float32 [n, C, H, W].
    """
    if rows is None:
        if 4 * real.images.numel() > RESIDENT_BYTES:
            return RealImages(real, preprocess, torch.device("cpu"))
        rows = torch.arange(len(real))
    return torch.cat([preprocess(real.unit(part)) for part in rows.split(_CHUNK)])
