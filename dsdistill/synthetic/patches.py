"""Real images or crops of them, chosen by trained networks, side by side in the images of a new set.

RDED (Sun et al., CVPR 2024) takes random crops of real images and keeps those that a teacher is surest of;
CIM (ECCV 2026) keeps whole images; NRR-DD (Tran et al., CVPR 2025) keeps, of the crops that hold what the
teacher looks at, those it is least sure of. They differ in options only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor

from dsdistill.augment.crops import Crops, RandomResizedCrop
from dsdistill.config.validation import forbid_extra
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.seeding import generator
from dsdistill.synthetic.trained import TrainedNetworks

Share = Annotated[float, Gt(0), Le(1)]

_BATCH_BYTES = 1 << 27
"""Of the images that a teacher is asked about at once."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """Which real images or crops a set starts from, where ``init`` is "patches"."""

    pool: Annotated[int, Ge(0)] = 300
    """Images of a class that are considered, at most; 0 considers all."""
    order: Literal["random", "first"] = "random"
    """Whether these are random ones, or the first in the data set's order."""
    crops: Annotated[int, Ge(0)] = 5
    """Random square crops of each image, of which one is kept; 0 keeps whole images."""
    scale: tuple[Share, Share] = (0.08, 1.0)
    """Smallest and largest share of the image that a crop has."""
    keep: Literal["confidence", "cam"] = "confidence"
    """Which crop of an image is kept: the one whose class the first teacher is surest of, or the one that
    holds most of that teacher's class activation map."""
    grid: Annotated[int, Ge(1)] = 1
    """Cells along a side of a stored image; a cell holds one crop or whole image, shrunk to its size."""
    shrink: Literal["antialias", "nearest"] = "antialias"
    """How they are shrunk: bilinearly, with antialiasing; or to their nearest pixels, as a mosaic that is
    decoded again has them."""
    score: Literal["confidence", "el2n"] = "confidence"
    """What ranks the images of a class: how sure the first teacher is of the class, by cross-entropy, of a
    crop as large as a cell with zeros around it; or how hard the images were in the teachers' training."""
    pick: Literal["easiest", "hardest", "middle"] = "easiest"
    """Which are taken: those of the lowest scores, of the highest ones, or those around the median, which are
    in the middle third where that is large enough."""

    def __post_init__(self) -> None:
        if self.scale[0] > self.scale[1]:
            raise UserError(f"patches.scale is the smaller share first, not {list(self.scale)}")

    def check_size(self, size: int) -> None:
        """Raise a UserError unless the cells divide images of ``size`` pixels a side."""
        if size % self.grid:
            raise UserError(
                f"{self.grid} cells do not divide a side of {size} pixels: set patches.grid to a divisor of "
                f"it, or another size by --size, such as {-(-size // self.grid) * self.grid}"
            )

    def needed(self, counts: Sequence[int]) -> list[int]:
        """Return how many real images of each class are in ``counts`` stored ones."""
        return [count * self.grid**2 for count in counts]

    def check_classes(self, real: RealDataset, needed: Sequence[int]) -> None:
        """Check that each class has as many images as are needed.

        Raises:
            UserError: naming the class that lacks most.
        """
        pool_sizes = real.counts.clamp(max=self.pool or len(real)).tolist()
        lacking = [count - pool_size for count, pool_size in zip(needed, pool_sizes, strict=True)]
        if max(lacking) <= 0:
            return
        label = lacking.index(max(lacking))
        total = int(real.counts[label])
        limit = f", of {total}" if pool_sizes[label] < total else ""
        remedy = "a larger patches.pool, or " if pool_sizes[label] < total else ""
        grid = ", or a smaller patches.grid" if self.grid > 1 else ""
        raise UserError(
            f"class {real.classes[label]!r} has {pool_sizes[label]} images to choose from{limit}, fewer than "
            f"the {needed[label]} to start from: set {remedy}a smaller --ipc{grid}"
        )


@dataclass(frozen=True, eq=False)
class Patches:
    """Parts of real images of one class, in the order in which they fill cells.

    Attributes:
        rows: int64 [n], positions in the training set.
        crops: the part of each image.
    """

    rows: Tensor
    crops: Crops


class PatchSelection:
    """Chooses patches, class by class."""

    def __init__(
        self, task: Task, real: RealDataset, config: PatchConfig, seed: int, teacher: TrainedNetworks
    ) -> None:
        """Read what the choice depends on.

        Args:
            task, real: the training images.
            config: how to choose.
            seed: of the run.
            teacher: the first of its networks is asked.

        Raises:
            UserError: the grid does not divide the images; or images are to be ranked by their difficulty,
                and the teachers do not know it.
        """
        config.check_size(task.size)
        self._task, self._real, self._config, self._seed, self._teacher = task, real, config, seed, teacher
        self._side = task.size // config.grid
        self._difficulty = teacher.difficulty() if config.score == "el2n" else None
        if self._difficulty is not None and len(self._difficulty) != len(real):
            raise UserError(
                f"the teachers know how hard {len(self._difficulty)} images are, and {real.name} has "
                f"{len(real)}: train them on these images, or set patches.score=confidence"
            )
        self._batch = max(1, _BATCH_BYTES // (4 * task.channels * task.size**2))

    def choose(self, label: int, needed: int) -> Patches:
        """Choose patches of a class that `PatchConfig.check_classes` has accepted."""
        pool = self._considered(label)
        boxes, losses = self._kept_crops(label, pool, self._boxes(len(pool), label))
        if self._difficulty is not None:
            scores = self._difficulty[pool]
        elif losses is not None:
            scores = losses
        else:
            scores = torch.cat([self._losses(label, *part) for part in self._parts(pool, boxes)])
        chosen = _picked(scores, needed, self._config.pick)
        return Patches(pool[chosen], Crops(size=self._task.size, boxes=boxes[chosen]))

    def cells(self, patches: Patches) -> Tensor:
        """Return patches as the cells of stored images hold them, [n, C, h, h] in unit space."""
        return self._shrunk(self._real.unit(patches.rows).cpu(), patches.crops.boxes)

    def originals(self, patches: Patches) -> Tensor:
        """Return patches as large as images, [n, C, S, S] in unit space."""
        return patches.crops(self._real.unit(patches.rows).cpu())

    def _considered(self, label: int) -> Tensor:
        """Return the positions of the images of a class to choose from."""
        members, config = self._real.indices_of(label), self._config
        if config.order == "random":
            stream = generator(self._seed, "init", label)
            members = members[torch.randperm(len(members), generator=stream)]
        return members[: config.pool or None]

    def _boxes(self, count: int, label: int) -> Tensor:
        """Draw crops of images of a class: int64 [count, crops, 4], or one for each, of all of it."""
        size, crops = self._task.size, self._config.crops
        if not crops:
            return torch.tensor([0, 0, size, size]).expand(count, 1, 4)
        stream = generator(self._seed, "patches", label)
        crop = RandomResizedCrop(scale=self._config.scale, ratio=(1.0, 1.0))
        return crop.draw(count * crops, size, stream).boxes.unflatten(0, (count, crops))

    def _kept_crops(self, label: int, pool: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the crop of each image that is kept, int64 [n, 4], and its loss if that decided."""
        if boxes.shape[1] == 1:
            return boxes[:, 0], None
        of_images = torch.arange(len(pool))
        if self._config.keep == "cam":
            worth = torch.cat([self._coverage(label, *part) for part in self._parts(pool, boxes)])
            return boxes[of_images, worth.argmax(1)], None
        losses = torch.cat([self._crop_losses(label, *part) for part in self._parts(pool, boxes)])
        best = losses.argmin(1)
        return boxes[of_images, best], losses[of_images, best]

    def _parts(self, pool: Tensor, boxes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images in unit space, in batches, each with its boxes."""
        for rows, some in zip(pool.split(self._batch), boxes.split(self._batch), strict=True):
            yield self._real.unit(rows).cpu(), some

    def _crop_losses(self, label: int, images: Tensor, boxes: Tensor) -> Tensor:
        """Return the cross-entropy of each of some images' crops, [m, crops]."""
        return torch.stack([self._losses(label, images, some) for some in boxes.unbind(1)], 1)

    def _coverage(self, label: int, images: Tensor, boxes: Tensor) -> Tensor:
        """Return how much of an image's class activation map each of its crops holds, [m, crops]."""
        labels = torch.full((len(images),), label)
        activation = self._teacher.activation(0, self._task.preprocess(images), labels)
        above = F.pad(activation.double().cumsum(1).cumsum(2), (1, 0, 1, 0))
        image, (top, left, height, width) = torch.arange(len(images))[:, None], boxes.unbind(2)
        bottom, right = top + height, left + width
        return (
            above[image, bottom, right]
            - above[image, top, right]
            - above[image, bottom, left]
            + (above[image, top, left])
        )

    def _losses(self, label: int, images: Tensor, boxes: Tensor) -> Tensor:
        """Return the cross-entropy of a class for one part of each image, float64 [m]."""
        logits = self._teacher.logits(0, self._presented(images, boxes)).double()
        return F.cross_entropy(logits, torch.full((len(logits),), label), reduction="none")

    def _presented(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Return parts of images as the teacher sees them: whole images as they are, crops amid zeros."""
        preprocess = self._task.preprocess
        if not self._config.crops:
            return preprocess(images)
        canvas = preprocess.inverse(torch.zeros_like(images))
        first = (self._task.size - self._side) // 2
        inside = slice(first, first + self._side)
        canvas[..., inside, inside] = self._shrunk(images, boxes)
        return preprocess(canvas)

    def _shrunk(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Bring a part of each image to the size of a cell."""
        top, left, height, width = boxes.unbind(1)
        resampling = _nearest if self._config.shrink == "nearest" else _antialiased
        size = self._task.size
        rows, columns = (
            resampling(first, length, size, self._side).to(images)[:, None]
            for first, length in ((top, height), (left, width))
        )
        return rows @ images @ columns.transpose(-1, -2)


def _picked(scores: Tensor, needed: int, pick: str) -> Tensor:
    """Return the positions of so many scores, int64 [needed]; of equal ones the first come first."""
    ranked = scores.argsort(stable=True, descending=pick == "hardest")
    first = (len(ranked) - needed) // 2 if pick == "middle" else 0
    return ranked[first : first + needed]


def _antialiased(first: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """Return matrices [n, side, size] that bring ``length`` pixels from ``first`` on to ``side`` pixels.

    As torch's interpolation, bilinear with antialiasing: where it shrinks, a pixel is the mean of all near
    it, weighted by a triangle.
    """
    step = (length.double() / side)[:, None, None]
    centre = (torch.arange(side)[:, None] + 0.5) * step
    place = torch.arange(size) - first[:, None, None]
    weight = (1 - (place + 0.5 - centre).abs() / step.clamp(min=1)).clamp(min=0)
    weight = weight * ((place >= 0) & (place < length[:, None, None]))
    return weight / weight.sum(2, keepdim=True)


def _nearest(first: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """Return matrices as `_antialiased` does, each of whose rows takes one pixel."""
    place = first[:, None] + torch.arange(side) * length[:, None] // side
    return F.one_hot(place, size).double()
