"""What a reader takes from a source, before it becomes a distilled set; and what a format is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from dsdistill.data.preprocess import Preprocess
from dsdistill.synthetic.distilled import Scalar
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation

Space = Literal["unit", "standardised", "zca"]

CONSTANTS_IN_USE = {"cifar100": "cifar10"}
"""Data sets that the code of the MTT family and DD-Ranking standardise by the constants of another one."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is known before a source is read.

    Attributes:
        dataset: name of the data set.
        channels: of its images.
        labels: a file of labels, where the source has none.
        factor: tiles along a side of a stored image; None where it was not given.
        which: of several sets in a source, counted from 0.
        size: side to which pictures are resized; None keeps them as they are.
    """

    dataset: str
    channels: int
    labels: Path | None = None
    factor: int | None = None
    which: int | None = None
    size: int | None = None

    @property
    def multi_formation(self) -> MultiFormation:
        """How stored images are decoded; as they are where no factor was given."""
        return IDENTITY if self.factor is None else MultiFormation(factor=self.factor)


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """Images and labels as a source holds them.

    Attributes:
        images: numbers of any dtype [N,C,H,W].
        labels: whole numbers [N] in any order, or None.
        soft_labels: numbers [N,K], or None.
        are_logits: whether soft labels are known to be logits, whatever their values.
        by_class: whether images are known to lie class by class, equally many of each.
        classes: names to which labels refer; None for those of the data set.
        space: of the pixels; None where only their values tell.
        states_space: whether the source itself says so, so that strange pixels are taken.
        preprocess: by which the pixels left unit space, and by which students are to be trained; None where
            the source does not hold it.
        constants: the data set whose mean and deviation standardised the pixels; None for its own.
        lr: the learning rate of students that was learned with the set.
        protocol: of the method's paper.
        attributes: how the set was made, where the source tells it.
        notices: sentences on how the source was understood.
    """

    images: Tensor
    labels: Tensor | None = None
    soft_labels: Tensor | None = None
    are_logits: bool = False
    by_class: bool = False
    classes: tuple[str, ...] | None = None
    space: Space | None = None
    states_space: bool = False
    preprocess: Preprocess | None = None
    constants: str | None = None
    multi_formation: MultiFormation = IDENTITY
    lr: float | None = None
    protocol: str | None = None
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A way in which programs store distilled sets.

    Attributes:
        about: a line on what such a source is.
        recognises: whether a path, which exists, looks like one.
        read: reads it; raises a UserError where it is none, or is damaged.
        options: the options that say something about such a source, of `OPTIONS`.
    """

    name: str
    about: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Request], Source]
    options: tuple[str, ...] = ("labels", "factor", "constants")


OPTIONS = ("labels", "factor", "which", "constants")
"""Options that not every format takes."""
