"""Start a run from the images of a finished set."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dsdistill.config.ipc import as_words
from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.set import Space, SyntheticSet
from dsdistill.text import listing


def from_set(
    task: Task, distilled: DistilledSet, counts: Sequence[int], space: Space, name: str
) -> SyntheticSet:
    """Build the synthetic set that starts from a finished one.

    Args:
        task: the task to distil.
        distilled: of which the images, their numbers and the multi-formation are taken.
        counts: images of each class that the run is to have.
        space: pixel space of the learnable images.
        name: of its file, for messages.

    Raises:
        UserError: it has other classes, images of another size or number, or another preprocessing;
            or compensators.
    """
    if distilled.compensators is not None:
        raise UserError(
            f"{name} has compensators, which no run goes on from: start from another set, or from its "
            "training images, which dsdistill import writes as a set of their own"
        )
    set_counts = tuple(torch.bincount(distilled.labels, minlength=len(distilled.classes)).tolist())
    if distilled.classes != task.classes:
        raise UserError(
            f"{name} has classes {listing(distilled.classes)}, and {task.name} has {listing(task.classes)}: "
            "start from a set of the same data"
        )
    shapes = ["x".join(map(str, shape)) for shape in (distilled.images.shape[1:], task.shape)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"{name} has images of {shapes[0]}, and this run has {shapes[1]}: pass --size "
            f"{distilled.images.shape[-1]}, or start from another set"
        )
    if not distilled.preprocess.agrees(task.preprocess):
        kinds = distilled.preprocess.kind, task.preprocess.kind
        whitens = str(kinds[0] == "zca").lower()
        raise UserError(
            f"{name} was made for preprocessing {kinds[0]}, and this run has {kinds[1]}"
            + (f": pass --set data.zca={whitens}" if kinds[0] != kinds[1] else " of other constants")
        )
    if set_counts != tuple(counts):
        raise UserError(
            f"{name} has {as_words(set_counts)} images per class, and this run {as_words(tuple(counts))}: "
            "leave out --ipc"
        )
    images = distilled.images if space == "unit" else task.preprocess(distilled.images)
    return SyntheticSet(images.clone(), counts, space, task.preprocess, distilled.multi_formation)
