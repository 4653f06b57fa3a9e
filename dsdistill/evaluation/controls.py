"""Controls: images that get labels as the distilled set has them, so that a table tells what these are worth.

Random real images, or noise, are labelled by a teacher in the same way as the set: online while a student
trains, once for each image, or for every stored view. What they lack is the distilled pixels alone.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from dsdistill.config.labels import Source
from dsdistill.errors import UserError
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.images import RealImages
from dsdistill.seeding import generator
from dsdistill.synthetic.distilled import Scalar
from dsdistill.synthetic.views import Views
from dsdistill.teachers import Committee
from dsdistill.teachers.committee import Mean, Mode, Unseen


def labeller_of(teacher: Committee, attributes: Mapping[str, Scalar]) -> Committee:
    """Return the committee that answers as the one that labelled a set, from its teachers.

    A set's file has the digest of its labels' committee, which covers weights, mean and mode. They are taken
    from it where it is there.

    Args:
        teacher: with the teachers; its own mean and mode are taken where the file has no digest.
        attributes: of the set.

    Raises:
        UserError: other teachers labelled the set.
    """
    digest = attributes.get("teacher_digest")
    if digest is None:
        return teacher
    for each in _candidates(teacher, int(attributes.get("teacher_parts", 1))):
        if each.digest == digest:
            return each
    raise UserError(
        f"the set's labels are by {attributes.get('teacher', 'another teacher')}, and --teacher names "
        f"{teacher.name}: name the same, or --baselines without +labels"
    )


def _candidates(teacher: Committee, parts: int) -> Iterator[Committee]:
    """Yield the committees that the same teachers can make."""
    weights: list[Sequence[float]] = [teacher.weights, ()]
    for images in get_args(Unseen):  # earlier versions weighed by the accuracy on test images
        if sum(known := teacher.accuracies(images)) > 0:
            weights.append(known)
    for mode, mean, weight in itertools.product(get_args(Mode), get_args(Mean), weights):
        yield dataclasses.replace(teacher, mode=mode, mean=mean, weights=weight, parts=parts)


def labelled(
    training_sets: Callable[[int], TrainingSet], labels: Source, teacher: Committee, views: Views | None
) -> Callable[[int], TrainingSet]:
    """Return a function from a repeat to its training set, with labels as the distilled set has them.

    Args:
        training_sets: the same without these labels.
        labels: where those of the distilled set come from: "static", "views" or "teacher".
        teacher: that answers for these images; on the device that computes.
        views: of the distilled set; its crops, flips and mixing are taken and answered anew.
    """

    @functools.lru_cache(maxsize=1)  # sets that all repeats share stay one object
    def with_labels(plain: TrainingSet) -> TrainingSet:
        if labels == "views":
            return dataclasses.replace(plain, source=labels, views=views, relabelled=True)
        if labels == "teacher":
            return dataclasses.replace(plain, source=labels)
        return dataclasses.replace(plain, source=labels, logits=_static_logits(plain.images, teacher))

    return lambda repeat: with_labels(training_sets(repeat))


def _static_logits(images: Tensor | RealImages, teacher: Committee) -> Tensor:
    """Return a teacher's logits of images, float32 [N, K], on the CPU.

    A teacher that normalises by the batch sees small batches of a random order: by class, its batches would
    differ from those of any training.
    """
    by_batch = teacher.mode == "train"
    order, size = torch.arange(len(images)), _AT_ONCE
    if by_batch:
        order, size = torch.randperm(len(images), generator=generator(0, "control-order")), _BATCH
    parts = [teacher.logits(images[rows].to(teacher.device)).cpu() for rows in order.split(size)]
    return torch.cat(parts)[order.argsort()]


_AT_ONCE, _BATCH = 4096, 64
