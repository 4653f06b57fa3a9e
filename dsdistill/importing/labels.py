"""The labels of a source as those of a data set: whole numbers, class by class, and logits if soft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.importing.classes import match
from dsdistill.importing.source import Source
from dsdistill.text import listing

_AGREEMENT = 0.5
"""The share of soft labels from which images lie class by class, though nothing says so."""
_LEAST = 1e-12
"""Of probabilities, before their logarithm is taken."""


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of a data set's classes.

    Attributes:
        order: positions of the images class by class, int64 [N]; those of a class keep their order.
        hard: int64 [N], in that order.
        soft: float32 logits [N,K], in that order, or None; of decoded images, as they are.
        notices: sentences on how they were found.
    """

    order: Tensor
    hard: Tensor
    soft: Tensor | None
    notices: tuple[str, ...]


def labels_of(source: Source, task: Task) -> Labels:
    """Find the label of each image of a source.

    Raises:
        UserError: labels are out of range, not whole, or of another number than the images; classes are not
            those of the data set; or there are neither labels nor equally many images of each class.
    """
    targets, sentence = match(source.classes or task.classes, task)
    notices = [sentence]
    hard, soft = _apart(source)
    if soft is not None:
        _check_soft(soft, source, task, len(targets))
        kind = "logits" if source.are_logits else _kind(soft)
        notices.append(_KINDS[kind])
        if kind == "one-hot":
            hard, soft = (soft.argmax(1) if hard is None else hard), None
        elif kind == "probabilities":
            soft = soft.clamp_min(_LEAST).log()
    if hard is None:
        hard, sentence = _by_position(source, soft, task)
        notices.append(sentence)
    _check_hard(hard, source, task, len(targets))
    labels = torch.tensor(targets)[hard.long()]
    order = labels.argsort(stable=True)
    if absent := [
        task.classes[label] for label in sorted(set(range(task.num_classes)) - set(labels.tolist()))
    ]:
        notices.append(f"no images of classes {listing(absent)}")
    if soft is not None:
        soft = _arranged(soft, torch.tensor(targets), order)
    return Labels(order, labels[order], soft, tuple(filter(None, notices)))


def _apart(source: Source) -> tuple[Tensor | None, Tensor | None]:
    """Return hard labels [N] and soft ones float32 [N,K], whichever of them a source has."""
    hard, soft = source.labels, source.soft_labels
    if hard is not None and hard.dim() == 2 and hard.shape[1] == 1:
        hard = hard[:, 0]
    if hard is not None and hard.dim() == 2:
        hard, soft = None, hard if soft is None else soft
    return hard, None if soft is None else soft.float()


def _check_soft(soft: Tensor, source: Source, task: Task, classes: int) -> None:
    rows, width = len(source.images), task.num_classes
    if soft.dim() != 2 or soft.shape[1] != width:
        raise UserError(
            f"the soft labels have shape {list(soft.shape)}, and {rows} images of {task.name} take "
            f"[{rows},{width}]"
        )
    if classes != width:
        raise UserError(
            f"the source names {classes} classes, and each of its soft labels has {width} values; name the "
            f"{width} classes of {task.name}, or none"
        )
    decodes = not source.multi_formation.is_identity
    if len(soft) != rows and not decodes:
        raise UserError(f"there are {len(soft)} soft labels for {rows} images; there must be one for each")
    if not soft.isfinite().all():
        raise UserError("the soft labels hold values that are not finite (NaN or infinity)")


def _kind(soft: Tensor) -> Literal["one-hot", "probabilities", "logits"]:
    sums_to_one = bool((soft.sum(1) - 1).abs().max() < 1e-3)
    if not sums_to_one or soft.min() < 0:
        return "logits"
    return "one-hot" if bool(((soft == 0) | (soft == 1)).all()) else "probabilities"


_KINDS = {
    "one-hot": "the labels are one-hot, so they are stored as hard ones",
    "probabilities": "the soft labels are probabilities, so their logarithms are stored",
    "logits": "the soft labels are stored as logits",
}


def _by_position(source: Source, soft: Tensor | None, task: Task) -> tuple[Tensor, str]:
    """Return hard labels of a source that has none, and a sentence on where they are from."""
    count, classes = len(source.images), task.num_classes
    even = torch.arange(classes).repeat_interleave(count // classes)
    if soft is None or len(soft) != count:
        if len(even) != count:
            raise UserError(
                f"there are no labels for the {count} images, and {task.name} has {classes} classes; pass "
                "--labels"
            )
        return even, f"there are no labels: the images are taken class by class, {count // classes} of each"
    largest = soft.argmax(1)
    agreement = float((largest == even).float().mean()) if len(even) == count else 0.0
    if len(even) == count and (source.by_class or agreement >= _AGREEMENT):
        return even, (
            f"hard labels are taken class by class, {count // classes} of each; the largest soft label "
            f"agrees for {agreement:.0%} of the images"
        )
    return largest, "hard labels are those of the largest soft label"


def _check_hard(labels: Tensor, source: Source, task: Task, classes: int) -> None:
    count = len(source.images)
    if labels.shape != (count,):
        raise UserError(
            f"the labels have shape {list(labels.shape)}, and there are {count} images; save one for each"
        )
    if labels.dtype == torch.bool or bool((labels != labels.round()).any()):  # true for NaN
        raise UserError(f"the labels are not whole numbers; {task.name} has the labels 0 to {classes - 1}")
    for bad in (labels.min(), labels.max()):
        if not 0 <= bad < classes:
            raise UserError(
                f"the labels go up to {float(labels.max()):g} and down to {float(labels.min()):g}, and "
                f"{task.name} has {classes} classes: 0 to {classes - 1}; number them so"
            )


def _arranged(soft: Tensor, targets: Tensor, order: Tensor) -> Tensor:
    """Bring soft labels into the order of the data set's classes and of its images."""
    columns = torch.empty_like(soft)
    columns[:, targets] = soft
    if len(soft) == len(order):
        return columns[order]
    if not torch.equal(order, torch.arange(len(order))):
        raise UserError("the soft labels are those of decoded images, so the images must be sorted by class")
    return columns
