"""Real images by position or by class, as a network sees them. Every draw is a function of the seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import RealDataset, Task
from dsdistill.seeding import generator


@dataclass(frozen=True, eq=False)
class RealBatches:
    """The training images of a task, in network space on a device.

    Attributes:
        task: what is distilled.
        data: the training images.
        seed: of the run.
        device, dtype: of the batches.
        preprocess: the task's, on that device in that dtype.
    """

    task: Task
    data: RealDataset
    seed: int
    device: torch.device
    dtype: torch.dtype
    preprocess: Preprocess

    @classmethod
    def of(
        cls,
        task: Task,
        data: RealDataset,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> RealBatches:
        """Bring the task's preprocessing to the device."""
        return cls(task, data, seed, device, dtype, task.preprocess.to(device, dtype))

    def images(self, positions: Tensor) -> Tensor:
        """Return the images at some positions, int64 [n], preprocessed: [n, C, H, W]."""
        return self.preprocess(self.data.unit(positions).to(self.device, self.dtype))

    def labels(self, positions: Tensor) -> Tensor:
        """Return the labels at some positions, int64 [n]."""
        return self.data.labels[positions].to(self.device, non_blocking=True)

    def positions(self, label: int, count: int, iteration: int, stream: str = "batches") -> Tensor:
        """Draw positions of ``count`` images of a class without replacement; a smaller class gives all."""
        members = self.data.indices_of(label)
        order = torch.randperm(len(members), generator=generator(self.seed, stream, iteration, label))
        return members[order[:count]]
