"""A distilled set as a torch data set, as students train on it."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dsdistill.config.ipc import mean_ipc
from dsdistill.config.unlabelled import classes_words, is_labelled
from dsdistill.errors import UserError
from dsdistill.synthetic import compensation
from dsdistill.synthetic.distilled import DistilledSet, content_words
from dsdistill.synthetic.picture import as_html
from dsdistill.text import plain

Index = int | slice | Sequence[int] | Tensor
"""Of items of a data set: a number, also negative, or several; a mask is a Tensor of booleans."""

LabelKind = Literal["hard", "soft", "targets"]


def _check_kind(distilled: DistilledSet, labels: LabelKind) -> None:
    """Raise a UserError unless a set has labels of a kind."""
    if labels not in get_args(LabelKind):
        raise UserError(f"unknown kind of labels {labels!r}; known: {', '.join(get_args(LabelKind))}")
    if labels == "soft" and distilled.soft_labels is None:
        raise UserError('the set has no soft labels; load it with labels="hard"')
    if labels == "targets" and distilled.targets is None:
        raise UserError('the set has no targets; load it with labels="hard"')


class DistilledDataset(Dataset[tuple[Tensor, "int | Tensor"]]):
    """A distilled set as a torch data set, all in memory: no open file, safe in DataLoader workers.

    >>> dataset = dsdistill.load("set.h5")
    >>> image, label = dataset[3]
    >>> len(dataset), image.shape, label
    (10, torch.Size([1, 8, 8]), 3)

    It holds training images. Those of a multi-formation or of compensators are decoded from the stored images
    in unit pixel space, before any preprocessing. Each has the label of the stored image that it comes from,
    and soft labels of its own or of that image. With ``decode=False`` the data set holds the stored images,
    compensators aside.

    An item is (image float32 [C,H,W], label int), or (image, logits float32 [K]) with ``labels="soft"``, or
    (image, target float32 [d]) with ``labels="targets"`` and of a set without labels that has targets. Of a
    slice, a list of numbers or a mask it is (images [n,C,H,W], labels int64 [n] or logits [n,K] or targets
    [n,d]), as torch's ``TensorDataset`` has it.

    Attributes:
        images: float32 [N,C,H,W]; ``space="network"``: preprocessed, as a student is trained on;
            ``space="unit"``: pixels, 0 black and 1 white (may exceed).
        labels: int64 [N], class-major. soft_labels: float32 [N,K] logits, or None.
        targets: float32 [N,d], what a network is to answer to each image, or None.
        classes: K names in label order.
        sample_weights: float32 [N], the weight of each image in a student's loss, or None.
        views: stored views of the decoded images with a teacher's answers, or None; None if not decoded.
        stored: number of stored images of each class, int64 [K], whether they are decoded here or not;
            compensators, which are of no class, are shared out.
        multi_formation: how stored images become training images.
        compensators: what is added to stored images of every class, in unit pixel space; or None.
        is_plain: whether they do without decoding.
        preprocess: for real images too, before a student trained on this set classifies them.
        lr: the learning rate that was learned with the set, or None.
        attributes: how the set was made.

    Raises:
        UserError: the space or kind of label is unknown; the set has none of that kind; or its soft labels
            belong to the decoded images and ``decode`` is false.
    """

    def __init__(
        self,
        distilled: DistilledSet,
        space: Literal["network", "unit"] = "network",
        labels: LabelKind = "hard",
        decode: bool = True,
    ) -> None:
        if space not in ("network", "unit"):
            raise UserError(f"unknown space {space!r}; known: network, unit")
        _check_kind(distilled, labels)
        images, self.labels, self.soft_labels = distilled.images, distilled.labels, distilled.soft_labels
        self.sample_weights, self.targets = distilled.sample_weights, distilled.targets
        self.views = distilled.views if decode else None
        if decode and not distilled.is_plain:
            images, origins = distilled.decode()
            self.labels = self.labels[origins]
            if self.sample_weights is not None:
                self.sample_weights = self.sample_weights[origins]
            if self.targets is not None:
                self.targets = self.targets[origins]
            if self.soft_labels is not None and len(self.soft_labels) != len(origins):
                self.soft_labels = self.soft_labels[origins]
        elif self.soft_labels is not None and len(self.soft_labels) != len(images):
            if labels == "soft":
                raise UserError("the soft labels are those of decoded images; load the set with decode=True")
            self.soft_labels = None
        self.images = distilled.preprocess(images) if space == "network" else images
        self._space = space
        self.classes = distilled.classes
        self.stored = torch.bincount(distilled.labels, minlength=len(distilled.classes))
        self.stored += compensation.shared_out(distilled.compensator_count, len(distilled.classes))
        self.multi_formation, self.compensators = distilled.multi_formation, distilled.compensators
        self.is_plain = distilled.is_plain
        self.preprocess = distilled.preprocess
        self.attributes = dict(distilled.attributes)
        lr = self.attributes.get("learned_lr")
        self.lr = None if lr is None else float(lr)
        if labels == "hard" and self.targets is not None and not is_labelled(self.classes):
            labels = "targets"
        self._kind = "targets" if labels == "targets" else f"{labels} labels"
        self._answers = {"hard": self.labels, "soft": self.soft_labels, "targets": self.targets}[labels]

    def __repr__(self) -> str:
        words = f"{content_words(self.images, self.attributes)}, {classes_words(self.classes)}"
        return f"<DistilledDataset: {words}, in {self._space} space, {self._kind}>"

    @property
    def made_for(self) -> str:
        """The network that the set is made for, or that was matched; empty if none is known."""
        return str(self.attributes.get("student") or self.attributes.get("network", ""))

    @property
    def ipc(self) -> int:
        """Stored images of a class, by which protocols have settings; the mean, rounded, if they differ.

        With compensators it is rounded up: the IPC that such a set needs.
        """
        if self.compensators is not None:
            return int(self.stored.max())
        return mean_ipc(self.stored.tolist())

    def __len__(self) -> int:
        return len(self.images)

    def _repr_html_(self) -> str:
        """Return a picture of the images in unit pixel space, a column per class, as notebooks show it."""
        images = self.images if self._space == "unit" else self.preprocess.inverse(self.images)
        return as_html(images, self.labels, self.classes, content_words(self.images, self.attributes))

    def __getitem__(self, index: Index) -> tuple[Tensor, int | Tensor]:
        """Return one image and its label, logits or target; or several.

        Raises:
            TypeError: the index is no number, slice, list of numbers or mask. IndexError: it is out of range.
        """
        at = _positions(index, len(self))
        assert self._answers is not None
        answer = self._answers[at]
        return self.images[at], int(answer) if answer.ndim == 0 else answer


def _positions(index: Index, count: int) -> int | slice | Tensor:
    """Return an index as torch takes it: torch knows no steps backwards, and takes pairs for dimensions."""
    if isinstance(index, slice):
        numbers = range(*index.indices(count))
        return index if numbers.step > 0 else torch.tensor(numbers, dtype=torch.long)
    if getattr(index, "ndim", 0) == 0 and hasattr(index, "__index__") and not isinstance(index, bool):
        number = operator.index(index)  # of NumPy and torch, too
        _check_inside([number], count)
        return number
    several = _several(index)
    if several.dtype != torch.bool:
        _check_inside(several.tolist(), count)
    elif len(several) != count:
        raise IndexError(f"the mask has {len(several)} values, and the set {count} images")
    return several


def _several(index: Any) -> Tensor:
    """Return a list of numbers as int64 [n], or a mask as bool [n].

    Raises:
        TypeError: it is neither.
    """
    several = torch.empty(0, 0)
    if not isinstance(index, bool | str | tuple):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            several = torch.as_tensor(index)
    if several.shape == (0,):
        return several.long()  # torch takes an empty list for floats
    if several.ndim != 1 or several.is_floating_point() or several.is_complex():
        raise TypeError(
            f"a distilled data set takes a number, a slice, a list or a mask, not {plain(repr(index), 60)}"
        )
    return several if several.dtype == torch.bool else several.long()


def _check_inside(numbers: Sequence[int], count: int) -> None:
    outside = [number for number in numbers if not -count <= number < count]
    if outside:
        raise IndexError(f"there is no image {outside[0]}: the set holds {count}")
