"""Statistics of the real images of each class at every batch normalisation of every teacher.

The running statistics of a network are those of all classes together. WMDD (Liu et al., ICCV 2025) and LPLD
(Xiao & He, NeurIPS 2024) align the images of a class with its own instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dsdistill.compute.recovery import Statistics
from dsdistill.engines.sources import Sources
from dsdistill.supply.teachers import Teachers
from dsdistill.synthetic.set import Constants


def measure_classes(constants: Constants, sources: Sources[Teachers]) -> None:
    """Pass all real images through every teacher, and register the statistics of each class.

    Args:
        constants: of the set.
        sources: the teachers, ready to recover from, and the real images, which are not augmented.
    """
    for teacher, network in enumerate(sources.supply.recovering):
        of_classes = [network.population(sources.all_of(label)) for label in range(sources.task.num_classes)]
        for layer, pairs in enumerate(zip(*of_classes, strict=True)):
            means, variances = zip(*pairs, strict=True)
            constants[_name(teacher, layer, "mean")] = torch.stack(means)
            constants[_name(teacher, layer, "variance")] = torch.stack(variances)


def statistics_of(constants: Constants, teacher: int, layers: int, labels: Tensor) -> Statistics:
    """Return the statistics of some classes, for each layer of a teacher.

    Args:
        constants: where `measure_classes` has registered them.
        teacher: its number.
        layers: how many it has.
        labels: int64 [G], of the classes, on the device.

    Returns:
        mean and variance, [G, K] each, for each layer.
    """
    names = [(_name(teacher, layer, "mean"), _name(teacher, layer, "variance")) for layer in range(layers)]
    return [(constants[mean][labels], constants[variance][labels]) for mean, variance in names]


def _name(teacher: int, layer: int, what: str) -> str:
    return f"class_{what}_{teacher}_{layer}"
