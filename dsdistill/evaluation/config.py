"""The inputs of an evaluation: real data and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dsdistill.config.labels import Source
from dsdistill.data.real import RealDataset, Task
from dsdistill.evaluation.rows import RANDOM
from dsdistill.synthetic.coded import Coding


@dataclass(frozen=True, eq=False)
class RealData:
    """The data set that a distilled set is evaluated on.

    Attributes:
        train: for baselines; students of the distilled set do not see it.
        test: for the accuracy of every student.
    """

    task: Task
    train: RealDataset
    test: RealDataset


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is evaluated besides the distilled set, and with which networks.

    Attributes:
        networks: names of architectures; the protocol's student where empty.
        baselines: see ``dsdistill.evaluation.baselines``; None for those of the regime.
        real_images: how many real images take so many bytes, by `rows.size_of` the baselines; none for a set
            from no file. coding: how they are coded then, as the set is; None for 8 bits as they are.
        scores: also train the students that DD-Ranking's scores compare: where the set has soft labels, on
            its images with hard labels; where the protocol augments and random is among the baselines, on the
            set and on random images without augmentation.
        labels: replaces the source of labels that the protocol names; None for the protocol's.
        leak: also compare losses on training images with those on test images; see ``measures.Leak``.
        seed: of every random draw.
    """

    networks: Sequence[str] = ()
    baselines: Sequence[str] | None = (RANDOM,)
    real_images: Mapping[str, int] = field(default_factory=dict)
    coding: Coding | None = None
    scores: bool = False
    labels: Source | None = None
    leak: bool = False
    seed: int = 0
