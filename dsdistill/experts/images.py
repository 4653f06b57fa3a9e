"""The data of a training of experts, and the images of one split as networks see them."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import RealDataset, Task

_RESIDENT_BYTES = 1 << 30  # a split up to this size is preprocessed once, not once per pass
CHUNK = 512
"""Images per pass outside training."""


@dataclass(frozen=True, eq=False)
class ExpertData:
    """The images that experts are trained on, and those that they are tested on.

    Attributes:
        task: what is learned.
        train: its training images, also those that are held out.
        test: its test images; None where none are read.
    """

    task: Task
    train: RealDataset
    test: RealDataset | None = None


class NetworkImages:
    """Images of one split in network space, kept there if they are few.

    Attributes:
        real: the images as bytes, on a CUDA device if most of it stays free; of a part, all of them.
        labels: int64 [N] on the device.
        resident_bytes: of the images in network space that are kept.
    """

    def __init__(self, real: RealDataset, preprocess: Preprocess, device: torch.device) -> None:
        """Preprocess the images, if they are few.

        Args:
            real: the split.
            preprocess: from unit space to network space.
            device: that computes.
        """
        self.real = real.resident_on(device)
        self.labels = self.real.labels.to(device)
        self._device, self._preprocess = device, preprocess.to(device)
        self._part: Tensor | None = None
        self._resident: Tensor | None = None
        if 4 * self.real.images.numel() <= _RESIDENT_BYTES:
            resident = torch.empty(self.real.images.shape, device=device)
            for rows in self.chunks():
                resident[rows.to(device)] = self.images(rows)
            self._resident = resident
        self.resident_bytes = 0 if self._resident is None else self._resident.nbytes

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: Tensor) -> NetworkImages:
        """Return some of the images, at positions int64 [n] on the CPU, in that order; no image is copied."""
        part = copy.copy(self)
        part.labels, part._part = self.labels[rows.to(self._device)], rows
        return part

    def chunks(self) -> tuple[Tensor, ...]:
        """Return all rows, int64 on the CPU, in parts of one pass."""
        return torch.arange(len(self)).split(CHUNK)

    def images(self, rows: Tensor) -> Tensor:
        """Return images [n, C, H, W], float32 on the device; ``rows`` int64 [n] on the CPU."""
        if self._part is not None:
            rows = self._part[rows]
        if self._resident is not None:
            return self._resident[rows.to(self._device, non_blocking=True)]
        return self._preprocess(self.real.unit(rows.to(self.real.images.device)).to(self._device))
