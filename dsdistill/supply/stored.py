"""Networks that were trained beforehand and stored in a buffer: what pools and trajectories share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from dsdistill.config.validation import forbid_extra
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.supply.base import classified
from dsdistill.supply.fresh import Fresh


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class StoredConfig:
    """Networks from a buffer: a file that ``dsdistill experts`` wrote."""

    word: ClassVar[str]
    """What they are called, and the option that says how many to use; 0 takes all."""

    path: str = ""
    """The buffer's file."""
    digest: str = ""
    """Which networks they are; written down when a run begins, so that it never goes on with others."""

    @property
    def count(self) -> int:
        """How many are asked for."""
        return int(getattr(self, self.word))

    def resolved(self) -> Self:
        """Say which networks these are, and how many "all" are.

        More may be added to the file before a run is resumed or replayed, or other ones put in its place.

        Raises:
            UserError: the file is no buffer, or holds other networks than those written down.
        """
        if not self.path:
            return self
        buffer = ExpertFile.open(self.path)
        if self.digest not in ("", buffer.digest):
            raise UserError(
                f"{self.path} holds other {self.word} (digest {buffer.digest}) than those this run was "
                f"started with ({self.digest}): put those back, or start anew, with "
                "--set engine.supply.digest= where a config is replayed"
            )
        written: dict[str, Any] = {self.word: self.count or buffer.count, "digest": buffer.digest}
        return dataclasses.replace(self, **written)


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
        self.buffer = ExpertFile.open(told.path)
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
