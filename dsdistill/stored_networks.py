"""Networks that were trained beforehand and stored in a buffer: what pools and trajectories share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from dsdistill.buffer import Buffer
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.supply import Fresh, classified
from dsdistill.validation import FORBID_EXTRA


@dataclass(frozen=True, kw_only=True)
class StoredConfig:
    """Networks from a buffer: a file that ``dsdistill experts`` wrote."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_EXTRA
    word: ClassVar[str]
    """What they are called, and the option that says how many to use; 0 takes all."""

    path: str = ""
    """The buffer's file."""

    @property
    def count(self) -> int:
        """How many are asked for."""
        return int(getattr(self, self.word))

    def resolved(self) -> Self:
        """Say how many "all" are: more may be added to the file before a run is resumed or replayed.

        Raises:
            UserError: the file is no buffer.
        """
        if self.count or not self.path:
            return self
        all_of_them: dict[str, Any] = {self.word: Buffer.open(self.path).count}
        return dataclasses.replace(self, **all_of_them)


class Stored(Fresh):
    """Networks of a buffer.

    Attributes:
        buffer: the file.
        count: networks in use.
    """

    def __init__(self, name: str, task: Task, device: torch.device, told: StoredConfig, hint: str) -> None:
        """Open the buffer.

        Args:
            hint: what to do where no path is given.

        Raises:
            UserError: no path is given, the file is no buffer, or it holds fewer than asked for.
        """
        if not told.path:
            raise UserError(hint)
        super().__init__(name, task, device)
        self.buffer = Buffer.open(told.path)
        if told.count > self.buffer.count:
            raise UserError(
                f"{told.path} holds {self.buffer.count} {told.word}, not {told.count}: set "
                f"engine.supply.{told.word}=0 for all of them, or train more with dsdistill experts"
            )
        self.count = told.count or self.buffer.count

    def verify(self, name: str, task: Task, real: RealDataset) -> None:
        """Refuse networks that were trained for something else.

        Raises:
            UserError: naming both.
        """
        self.buffer.check(task, name, real.fingerprint)

    def logits(self, network: int, images: Tensor) -> Tensor:
        """Classify images [n, C, H, W] in network space by a trained network -> float32 [n, K], CPU."""
        return classified(self.network, self.buffer.state(network, self.buffer.epochs[-1]), images)
