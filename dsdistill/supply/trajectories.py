"""Expert trajectories: the weights of networks in training, epoch by epoch, for a student to follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill import seeding
from dsdistill.config.validation import forbid_extra
from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.supply.stored import Stored, StoredConfig


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class TrajectoriesConfig(StoredConfig):
    """Expert trajectories from a buffer: a file that ``dsdistill experts`` wrote."""

    word: ClassVar[str] = "experts"

    kind: Literal["trajectories"] = "trajectories"
    experts: Annotated[int, Ge(0)] = 0
    """How many of its experts to follow; 0 takes all."""


class Trajectories(Stored):
    """Experts that a student starts beside and is to arrive beside.

    ``network`` is what students and experts are made of; its own weights are never matched. Weights are read
    from the file when they are asked for. Batch normalisation sees the batch at hand, as in MTT's code.

    Attributes:
        layout: of the parameters in a vector [P].
    """

    def __init__(self, name: str, task: Task, device: torch.device, told: TrajectoriesConfig) -> None:
        """Open the buffer.

        Raises:
            UserError: no path is given, the file is no buffer, or it has fewer experts than asked for.
        """
        hint = (
            "this method follows expert trajectories: train some with dsdistill experts --recipe mtt (or "
            "the method's own recipe) -o experts.h5 and pass --experts experts.h5"
        )
        super().__init__(name, task, device, told, hint)
        self.layout = self.buffer.metadata.layout

    def require(self, epochs: Iterable[int], hint: str) -> None:
        """Refuse a buffer that lacks epochs a run may ask for.

        Args:
            hint: what to change, to complete the sentence.

        Raises:
            UserError: naming the first that is missing.
        """
        held = self.buffer.epochs
        missing = next((epoch for epoch in epochs if epoch not in held), None)
        if missing is not None:
            raise UserError(
                f"{self.buffer.path} does not hold epoch {missing} of its experts (it holds {len(held)} "
                f"epochs, the last being {held[-1]}): {hint}"
            )

    def draw(self, seed: int, iteration: int) -> bool:
        """Do nothing: what an iteration starts from is asked for by `expert` and `weights`."""
        return False

    def expert(self, seed: int, iteration: int) -> int:
        """Return the expert of an iteration: all in turn, shuffled anew for every round."""
        round_, place = divmod(iteration, self.count)
        order = torch.randperm(self.count, generator=seeding.generator(seed, "experts-order", round_))
        return int(order[place])

    def weights(self, expert: int, epoch: int, like: Tensor) -> Tensor:
        """Return the parameters [P] of an expert after some epochs, of the dtype and device of ``like``.

        Raises:
            UserError: the file is damaged there.
        """
        return self.buffer.flat(expert, epoch).to(like)
