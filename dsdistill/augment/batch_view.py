"""Views that all images of a batch share: one crop, one flip and one circular shift for all (SRe2L, CDA).

The crop is enlarged bilinearly, without antialiasing, as torchvision did when the papers' code was written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from annotated_types import Gt, Le
from torch import Tensor

from dsdistill.augment.crops import RandomResizedCrop, interpolation
from dsdistill.config.validation import forbid_extra
from dsdistill.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float

Share = Annotated[float, Gt(0), Le(1)]


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class BatchViewConfig:
    """What a teacher sees of a batch in each iteration."""

    crop: tuple[Share, Share] | None = None
    """Smallest and largest share of the image that a random crop enlarges; none sees the whole image."""
    curriculum: Literal["none", "cosine", "linear", "step"] = "none"
    """How the smallest share falls from the largest to that of ``crop`` (CDA): along half a cosine, a line,
    or at once."""
    milestone: Annotated[float, Gt(0), Le(1)] = 1.0
    """The share of the iterations after which it has fallen."""
    flip: bool = False
    """Mirror half of the batches; never where a mirror image may have another label."""
    shift: tuple[int, int] = (0, 0)
    """Roll the batch by so many pixels along each axis, both bounds included; what leaves comes in again."""

    def __post_init__(self) -> None:
        if self.crop and self.crop[0] > self.crop[1]:
            raise UserError(f"engine.view.crop is the smaller share first, not {list(self.crop)}")
        if self.shift[0] > self.shift[1]:
            raise UserError(f"engine.view.shift is the smaller bound first, not {list(self.shift)}")
        if self.curriculum != "none" and not self.crop:
            raise UserError("engine.view.curriculum is of crops: set engine.view.crop, as [0.08, 1.0]")

    def scale(self, iteration: int, iterations: int) -> tuple[float, float]:
        """Return the bounds of the share in an iteration, counted from 0, of so many."""
        least, most = self.crop or (1.0, 1.0)
        progress = iteration / (self.milestone * max(1, iterations))
        factors = {"none": 0.0, "cosine": (1 + math.cos(math.pi * min(1.0, progress))) / 2}
        factors |= {"linear": max(0.0, 1 - progress), "step": float(progress < 1)}
        return least + (most - least) * factors[self.curriculum], most

    def draw(
        self, size: int, mirror: bool, iteration: int, iterations: int, generators: Sequence[torch.Generator]
    ) -> BatchViews | None:
        """Draw one view for each of several batches.

        Args:
            size: height and width of the images.
            mirror: whether a mirror image keeps its label.
            iteration, iterations: of a run; the crop may depend on them.
            generators: of each batch, on the CPU.

        Returns:
            the views; None if every batch is seen as it is.
        """
        flip = self.flip and mirror
        if not self.crop and not flip and self.shift == (0, 0):
            return None
        crop = RandomResizedCrop(scale=self.scale(iteration, iterations)) if self.crop else None
        low, high = self.shift
        rows, columns = [], []
        for each in generators:
            boxes = crop.draw(1, size, each).boxes if crop else torch.tensor([[0, 0, size, size]])
            top, left, height, width = boxes.unbind(1)
            vertical, horizontal = interpolation(top, height, size)[0], interpolation(left, width, size)[0]
            mirrored = bool(torch.rand((), generator=each) < 0.5) and flip
            down, right = torch.randint(low, high + 1, (2,), generator=each).tolist()
            rows.append(vertical.roll(down, 0))
            columns.append((horizontal.flip(0) if mirrored else horizontal).roll(right, 0))
        return BatchViews(torch.stack(rows), torch.stack(columns))


@dataclass(frozen=True, eq=False)
class BatchViews:
    """One view for each of G batches: crop, then flip, then roll, which all are linear.

    Attributes:
        rows, columns: float64 [G, S, S]; a view of an image x is rows · x · columnsᵀ.
    """

    rows: Tensor
    columns: Tensor

    def __getitem__(self, batches: Tensor | slice) -> BatchViews:
        """Return the views of some batches."""
        return BatchViews(self.rows[batches], self.columns[batches])

    def __call__(self, images: Float[Tensor, "B C S S"]) -> Float[Tensor, "B C S S"]:
        """View images, an equal number of each batch, batch by batch; differentiable."""
        each = len(images) // len(self.rows)
        rows, columns = (
            part.to(images, non_blocking=True)[:, None, None] for part in (self.rows, self.columns)
        )
        with torch.autocast(images.device.type, enabled=False):
            batches = images.unflatten(0, (len(self.rows), each))
            return (rows @ batches @ columns.transpose(-1, -2)).flatten(0, 1)
