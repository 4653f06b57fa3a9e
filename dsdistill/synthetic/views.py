"""Views of a set's images, with a teacher's answer to each: what fast knowledge distillation stores.

A view is a random crop of an image, enlarged, perhaps mirrored, and mixed with another view of its batch. A
teacher has seen exactly this batch, and a student sees it again (Shen & Xing, FKD, ECCV 2022; SRe2L). Which
images a batch holds is stored, never drawn again: a change of library or machine mislabels nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from dsdistill.augment.crops import Crops
from dsdistill.augment.mix import Mix
from dsdistill.augment.operators import flip
from dsdistill.errors import UserError, unknown
from dsdistill.synthetic.answers import Answers

Mixing = Literal["none", "cutmix", "mixup"]


@dataclass(frozen=True, eq=False)
class ViewBatch:
    """One batch of views, before any image is known.

    Attributes:
        rows: int64 [B], the training image of each view.
        crops: a box for each.
        flips: bool [B], which are mirrored.
        mix: how they are mixed.
    """

    rows: Tensor
    crops: Crops
    flips: Tensor
    mix: Mix

    def images(self, images: Tensor) -> Tensor:
        """Return the batch, [B, C, S, S], in the dtype and on the device of the images; differentiable.

        Args:
            images: all training images of the set, [N, C, S, S], in network space.
        """
        views = self.crops(images[self.rows.to(images.device)])
        mirrored = self.flips.to(views.device)[:, None, None, None]
        return self.mix.images(torch.where(mirrored, flip(views), views))


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """Stored views: M batches of V views in all, one batch after another.

    Attributes:
        size: height and width of the images, in pixels.
        images: N, the training images that are viewed.
        rows: int32 [V], the training image of each view.
        crops: int16 [V, 4]: top, left, height and width of each box, in pixels.
        flips: bool [V].
        partners: int32 [V], the position in its batch of the view that each is mixed with.
        starts: int64 [M + 1], ascending from 0 to V: batch b holds the views from ``starts[b]`` on.
        epochs: int32 [M], not decreasing: the epoch of each batch.
        mixing: "cutmix" fills the box of a batch; "mixup" blends by its weight.
        boxes: int16 [M, 4]: first row and one past the last, the same of columns; of cutmix.
        weights: float64 [M], λ of mixup.
        answers: the teacher's, V of them.
        pool: the batches are a random share of those that were drawn (LPLD), and every epoch of a student
            takes any of them; else the student's epochs follow the stored ones.

    Raises:
        UserError: a tensor does not fit this description.
    """

    size: int
    images: int
    rows: Tensor
    crops: Tensor
    flips: Tensor
    partners: Tensor
    starts: Tensor
    epochs: Tensor
    mixing: Mixing
    boxes: Tensor
    weights: Tensor
    answers: Answers
    pool: bool = False

    def __post_init__(self) -> None:
        views, batches = len(self.rows), len(self.epochs)
        shapes = {
            "rows": (torch.int32, (views,)),
            "crops": (torch.int16, (views, 4)),
            "flips": (torch.bool, (views,)),
            "partners": (torch.int32, (views,)),
            "starts": (torch.int64, (batches + 1,)),
            "epochs": (torch.int32, (batches,)),
            "boxes": (torch.int16, (batches, 4)),
            "weights": (torch.float64, (batches,)),
        }
        for name, (dtype, shape) in shapes.items():
            tensor: Tensor = getattr(self, name)
            if tensor.dtype != dtype or tuple(tensor.shape) != shape:
                found = f"{tensor.dtype} {list(tensor.shape)}"
                raise UserError(f"views: {name} must be {dtype} {list(shape)}, got {found}")
        if self.mixing not in get_args(Mixing):
            raise unknown("mixing of views", self.mixing, get_args(Mixing))
        sizes = self.starts.diff()
        if not batches or self.starts[0] != 0 or self.starts[-1] != views or (sizes < 1).any():
            raise UserError("views: batches must follow one another, none of them empty")
        if len(self.answers) != views:
            raise UserError(f"views: {len(self.answers)} answers do not fit {views} views")
        in_batch = _between(self.partners, 0, sizes.repeat_interleave(sizes))
        if not in_batch or not _between(self.rows, 0, self.images):
            raise UserError("views: an image is outside the set, or a partner outside its batch")
        top, left, height, width = self.crops.long().unbind(1)
        inside = _between(top, 0, self.size - height + 1) and _between(left, 0, self.size - width + 1)
        if not inside or not _between(height, 1, self.size + 1) or not _between(width, 1, self.size + 1):
            raise UserError(f"views: a crop lies outside images of {self.size}×{self.size}")
        weighed = bool(((self.weights >= 0) & (self.weights <= 1)).all())
        if not weighed or not _between(self.boxes, 0, self.size + 1):
            raise UserError("views: a box or a weight of mixing is out of its range")
        if self.epochs[0] < 0 or (self.epochs.diff() < 0).any():
            raise UserError("views: epochs must ascend from 0")

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def batch_size(self) -> int:
        """Views of the largest batch."""
        return int(self.starts.diff().max())

    @property
    def per_epoch(self) -> int:
        """Batches that a student takes in an epoch."""
        return -(-self.images // self.batch_size)

    @property
    def epoch_count(self) -> int:
        """Stored epochs; of a pool, as many as its views would fill, at least one."""
        if self.pool:
            return max(1, len(self.rows) // self.images)
        return int(self.epochs.unique().numel())

    def schedule(self, epoch: int, generator: torch.Generator, most: int | None = None) -> list[int]:
        """Return the batches of a student's epoch, counted from 0; after the last stored epoch the first
        follows.

        Args:
            generator: draws from a pool, without replacement as far as it reaches.
            most: stored epochs (or, of a pool, their number of batches) that are used at most.
        """
        stored = self.epochs.unique()[:most]
        if not self.pool:
            chosen = stored[epoch % len(stored)]
            return (self.epochs == chosen).nonzero()[:, 0].tolist()
        available = min(len(self), most * self.per_epoch) if most else len(self)
        rounds = -(-self.per_epoch // available)
        order = torch.cat([torch.randperm(available, generator=generator) for _ in range(rounds)])
        return order[: self.per_epoch].tolist()

    def batch(self, number: int) -> ViewBatch:
        """Return a batch, without its images."""
        part = self.slice(number)
        count = part.stop - part.start
        edges = self.boxes[number].long().expand(count, 4)
        weight = self.weights[number].expand(count) if self.mixing == "mixup" else None
        mix = Mix(
            size=self.size,
            partner=self.partners[part].long(),
            rows=edges[:, :2],
            columns=edges[:, 2:],
            weight=weight,
        )
        crops = Crops(size=self.size, boxes=self.crops[part].long())
        return ViewBatch(self.rows[part].long(), crops, self.flips[part], mix)

    def slice(self, number: int) -> slice:
        """Return where the views and answers of a batch lie."""
        return slice(int(self.starts[number]), int(self.starts[number + 1]))


def _between(values: Tensor, low: int, end: int | Tensor) -> bool:
    """Whether all integers lie in [low, end)."""
    return bool(((values >= low) & (values < end)).all())
