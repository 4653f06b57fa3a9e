"""The teachers of a labelling, loaded for the set that they label."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.labelling.config import LabellingConfig
from dsdistill.runtime.device import Precision
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.teachers import Committee, Teacher, load_teachers


def load_committee(
    distilled: DistilledSet,
    config: LabellingConfig,
    device: torch.device,
    precision: Precision = "fp32",
    download: bool = False,
) -> Committee:
    """Load the teachers that options name, and check that they answer for a set.

    The set says for which data they have to be trained; the data themselves are not read.

    Args:
        distilled: the set to label.
        config: the teachers, and how their answers are averaged.
        device, precision: of the computation.
        download: fetch published weights that this machine lacks.

    Raises:
        UserError: a teacher is not there, or is of other data, classes or preprocessing; or they are to be
            weighted by an accuracy that nobody states.
    """
    about = distilled.attributes
    channels, _, size = distilled.images.shape[1:]
    name = str(about.get("dataset", "a set of unknown data"))
    task = Task(name, distilled.classes, channels, size, distilled.preprocess, mirror=True)
    teachers = load_teachers(config.references, task, str(about.get("fingerprint", "")), device, download)
    return Committee(teachers, _weights(teachers, config), config.mean, config.mode, precision, config.parts)


def _weights(teachers: Sequence[Teacher], config: LabellingConfig) -> list[float]:
    """Return the weights of teachers; none for equal ones.

    Raises:
        UserError: they are to be weighted by accuracy, and the file of one states none on images held out.
    """
    if config.weights == "equal":
        return []
    if config.weights != "accuracy":
        return list(config.weights)
    weights = []
    for teacher in teachers:
        if teacher.validation_accuracy is None:
            raise UserError(
                f"{teacher.name} has no accuracy on held-out training images to weigh it by: train it with "
                "dsdistill experts --set test=validation, or choose --weights equal"
            )
        weights.append(teacher.validation_accuracy)
    return weights
