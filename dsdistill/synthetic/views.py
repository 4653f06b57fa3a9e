"""Views of a set's images, with a teacher's answer to each: what fast knowledge distillation stores.

A view is a random crop of an image, enlarged, perhaps mirrored, and mixed with another view of its batch. A
teacher has seen exactly this batch, and a student sees it again (Shen & Xing, FKD, ECCV 2022; SRe2L). Which
images a batch holds is stored, never drawn again: a change of library or machine mislabels nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from dsdistill.augment.crops import Crops
from dsdistill.augment.mix import Mix
from dsdistill.augment.operators import flip
from dsdistill.data.preprocess import Preprocess
from dsdistill.errors import UserError, unknown
from dsdistill.synthetic.answers import Answers, Encoding

Mixing = Literal["none", "cutmix", "mixup"]


def bytes_of_view(encoding: Encoding, classes: int, top: int | None = None) -> int:
    """Return the bytes that a view takes at most, before compression: what is drawn, and the answer.

    >>> bytes_of_view("float16", 1000), bytes_of_view("distances", 1000)
    (2017, 21)
    """
    answer = {
        "float32": 4 * classes,
        "float16": 2 * classes,
        "uint8": classes + 8,
        "top": 6 * (top or 0) + 2,
        "distances": 4,
    }
    return _DRAWN_BYTES + answer[encoding]


_DRAWN_BYTES = 4 + 8 + 1 + 4  # image, crop, flip, partner


class Images(Protocol):
    """Images in network space by position: a tensor, or what brings them there when they are asked for."""

    @property
    def device(self) -> torch.device: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


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

    def __len__(self) -> int:
        return len(self.rows)

    @staticmethod
    def cat(parts: Sequence[ViewBatch]) -> ViewBatch:
        """Join batches; their views are mixed within their own batch still."""
        return ViewBatch(
            torch.cat([part.rows for part in parts]),
            Crops.cat([part.crops for part in parts]),
            torch.cat([part.flips for part in parts]),
            Mix.cat([part.mix for part in parts]),
        )

    def images(self, images: Images) -> Tensor:
        """Return the batch, [B, C, S, S], in the dtype and on the device of the images; differentiable.

        Args:
            images: all training images of the set, [N, C, S, S], in network space.
        """
        views = self.crops(images[self.rows.to(images.device, non_blocking=True)])
        mirrored = self.flips.to(views.device, non_blocking=True)[:, None, None, None]
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
        digest: the `digest_of` the images that are viewed; empty where nobody knows it.

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
    digest: str = ""

    def __post_init__(self) -> None:
        views, batches = len(self.rows), len(self.epochs)
        for name, (dtype, per_batch, columns) in _COLUMNS.items():
            tensor: Tensor = getattr(self, name)
            count = batches + (name == "starts") if per_batch else views
            shape = (count, columns) if columns else (count,)
            if tensor.dtype != dtype or tuple(tensor.shape) != shape:
                signature = f"{tensor.dtype} {list(tensor.shape)}"
                raise UserError(f"views: {name} must be {dtype} {list(shape)}, got {signature}")
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
        ascend = bool((self.boxes[:, [0, 2]] <= self.boxes[:, [1, 3]]).all())
        if not weighed or not ascend or not _between(self.boxes, 0, self.size + 1):
            raise UserError("views: a box or a weight of mixing is out of its range")
        if self.epochs[0] < 0 or (self.epochs.diff() < 0).any():
            raise UserError("views: epochs must ascend from 0")

    def __len__(self) -> int:
        return len(self.epochs)

    @classmethod
    def of(
        cls,
        batches: Sequence[tuple[int, ViewBatch]],
        answers: Answers,
        images: int,
        mixing: Mixing,
        pool: bool = False,
        digest: str = "",
    ) -> Views:
        """Store batches, one after another.

        Args:
            batches: each with its epoch; at least one.
            answers: to all their views.
            images, mixing, pool, digest: see the attributes.
        """
        joined = ViewBatch.cat([batch for _, batch in batches])
        sizes = torch.tensor([0, *(len(batch) for _, batch in batches)])
        mixes = [batch.mix for _, batch in batches]
        return cls(
            size=joined.crops.size,
            images=images,
            rows=joined.rows.int(),
            crops=joined.crops.boxes.short(),
            flips=joined.flips,
            partners=torch.cat([mix.partner for mix in mixes]).int(),
            starts=sizes.cumsum(0),
            epochs=torch.tensor([epoch for epoch, _ in batches], dtype=torch.int32),
            mixing=mixing,
            boxes=torch.stack([torch.cat([mix.rows[0], mix.columns[0]]) for mix in mixes]).short(),
            weights=torch.cat([_UNMIXED if mix.weight is None else mix.weight[:1] for mix in mixes]),
            answers=answers,
            pool=pool,
            digest=digest,
        )

    @staticmethod
    def cat(parts: Sequence[Views]) -> Views:
        """Join views of later and later epochs of the same images."""
        first, before, starts = parts[0], 0, [torch.zeros(1, dtype=torch.int64)]
        for part in parts:
            starts.append(part.starts[1:] + before)
            before += len(part.rows)
        columns = {name: torch.cat([part.columns()[name] for part in parts]) for name in first.columns()}
        columns["starts"] = torch.cat(starts)
        return Views.from_columns(columns, first.about(), first.answers.num_classes)

    def columns(self) -> dict[str, Tensor]:
        """Return all tensors by name, those of the answers after ``answers/``; without those that only
        another kind of mixing needs, and with bytes in place of booleans, as files hold them."""
        unused = {"cutmix": {"weights"}, "mixup": {"boxes"}, "none": {"boxes", "weights"}}[self.mixing]
        own = {name: getattr(self, name) for name in _COLUMNS if name not in unused}
        answers = {_ANSWERS + name: part for name, part in self.answers.parts.items()}
        return own | {"flips": self.flips.byte()} | answers

    def about(self) -> dict[str, str | int]:
        """Return what is no tensor, as files hold it."""
        return {
            "size": self.size,
            "images": self.images,
            "mixing": self.mixing,
            "encoding": self.answers.encoding,
            "pool": int(self.pool),
            "digest": self.digest,
        }

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, Tensor], about: Mapping[str, str | int | float], num_classes: int
    ) -> Views:
        """Return views from what `columns` and `about` returned.

        Args:
            num_classes: K.

        Raises:
            UserError: a column is missing, unknown or of another type, or the views make no sense.
        """
        is_answer = {name: name.startswith(_ANSWERS) for name in columns}
        parts = {name.removeprefix(_ANSWERS): part for name, part in columns.items() if is_answer[name]}
        own = {name: part for name, part in columns.items() if not is_answer[name]}
        batches = len(own.get("epochs", ()))
        own.setdefault("boxes", torch.zeros(batches, 4, dtype=torch.int16))
        own.setdefault("weights", torch.ones(batches, dtype=torch.float64))
        if set(own) != set(_COLUMNS):
            raise UserError(f"views hold {', '.join(_COLUMNS)}, not {', '.join(own)}")
        if own["flips"].dtype != torch.uint8 or (own["flips"] > 1).any():
            raise UserError("views: flips must be 0 or 1, uint8")
        own["flips"] = own["flips"].bool()
        encoding: Encoding = about["encoding"]  # type: ignore[assignment]  # checked there
        return cls(
            **own,
            size=int(about["size"]),
            images=int(about["images"]),
            mixing=about["mixing"],  # type: ignore[arg-type]  # checked there
            answers=Answers(encoding, num_classes, parts),
            pool=bool(about["pool"]),
            digest=str(about["digest"]),
        )

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


_COLUMNS: dict[str, tuple[torch.dtype, bool, int]] = {
    "rows": (torch.int32, False, 0),
    "crops": (torch.int16, False, 4),
    "flips": (torch.bool, False, 0),
    "partners": (torch.int32, False, 0),
    "starts": (torch.int64, True, 0),
    "epochs": (torch.int32, True, 0),
    "boxes": (torch.int16, True, 4),
    "weights": (torch.float64, True, 0),
}
"""Of each tensor: its dtype, whether it has a row for each batch (else for each view), and its width."""
_ANSWERS = "answers/"
_UNMIXED = torch.ones(1, dtype=torch.float64)


def digest_of(images: Tensor, labels: Tensor, preprocess: Preprocess, decoding: str) -> str:
    """Return what identifies the training images of a set as a teacher sees them: 64 hexadecimal digits.

    Args:
        images: float32 [N, C, H, W], as stored.
        labels: int64 [N].
        preprocess: from unit pixel space to network space.
        decoding: how they become training images.
    """
    digest = hashlib.sha256(json.dumps([list(images.shape), preprocess.kind, decoding]).encode())
    state = preprocess.state()
    for tensor in (images, labels, *(state[name] for name in sorted(state))):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _between(values: Tensor, low: int, end: int | Tensor) -> bool:
    """Whether all integers lie in [low, end)."""
    return bool(((values >= low) & (values < end)).all())
