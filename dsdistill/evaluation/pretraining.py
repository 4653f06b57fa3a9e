"""The sets that students are pre-trained on: the distilled one, and real images with a teacher's targets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dsdistill import seeding
from dsdistill.data.real import RealDataset, Task
from dsdistill.data.selection import few_enough, k_means, mini_batch
from dsdistill.errors import UserError, unknown
from dsdistill.evaluation.baselines import full_protocol
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.images import in_network_space
from dsdistill.evaluation.rows import DISTILLED, FULL, RANDOM, SCRATCH, TARGETS
from dsdistill.protocol import Protocol
from dsdistill.seeding import generator
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.teachers import Teacher

K_MEANS = "k-means"
BASELINES = (SCRATCH, RANDOM + TARGETS, K_MEANS + TARGETS, FULL + TARGETS)
"""What a set with targets is compared with, by default where a teacher is at hand; else the first alone."""

_CHUNK = 512  # images that a teacher answers to at once


@dataclass(frozen=True, eq=False)
class PretrainingSet:
    """What students of every network are pre-trained on.

    Attributes:
        name: see ``Row.set``.
        protocol: of the pre-training.
        images: that the set stores, or real images; 0 for none.
        decoded: that students train on.
        outputs: numbers that students learn to answer; 0 where they are not pre-trained.
        source: from a repeat to its images and targets; None where students are not pre-trained.
    """

    name: str
    protocol: Protocol
    images: int
    decoded: int
    outputs: int
    source: Callable[[int], TrainingSet] | None

    @property
    def epochs(self) -> int:
        """Of the pre-training; 0 where there is none."""
        return self.protocol.epochs if self.source else 0

    @property
    def steps(self) -> int:
        """Of the pre-training of one student."""
        return self.protocol.steps(self.decoded) if self.source else 0


@dataclass(frozen=True, eq=False)
class Taught:
    """Real images, to which a teacher gives targets.

    Attributes:
        task, real: the training images of the data that the set was distilled from.
        teacher: whose features are the targets.
    """

    task: Task
    real: RealDataset
    teacher: Teacher

    def set_of(self, rows: Tensor, device: torch.device) -> TrainingSet:
        """Return the images at some positions, int64 [n], with their targets; on the CPU."""
        is_all = torch.equal(rows, torch.arange(len(self.real)))
        images = in_network_space(self.real, None if is_all else rows, self.task.preprocess)
        with torch.inference_mode():
            targets = [
                self.teacher.network.embed(images[part].to(device)).float().cpu()
                for part in torch.arange(len(rows)).split(_CHUNK)
            ]
        logits = torch.cat(targets).clone()
        return TrainingSet(images, self.real.labels[rows], logits, source="static")

    def near_centres(self, count: int, seed: int) -> Tensor:
        """Return the positions of the images nearest to the k-means centres of all pixels, int64 [count].

        Of images that take more than a gigabyte as numbers, a random part is clustered.
        """
        fit = partial(mini_batch, seed=seeding.derive(seed, "transfer-k-means") % 2**32)
        stream = generator(seed, "transfer-clustered")
        rows = few_enough(torch.arange(len(self.real)), self.real.images[0].numel(), stream)
        return rows[k_means(self.real.unit(rows).flatten(1), count, fit)]


def names_of(names: Sequence[str] | None, teacher: bool) -> list[str]:
    """Return the names of the baselines of an evaluation.

    Args:
        names: those that are named; None for the default.
        teacher: whether one is at hand.

    Raises:
        UserError: one is unknown, or has targets and there is no teacher.
    """
    if names is None:
        return list(BASELINES) if teacher else [SCRATCH]
    for name in names:
        if name not in BASELINES:
            raise unknown("baseline of pre-training", name, BASELINES)
        if name.endswith(TARGETS) and not teacher:
            raise UserError(f"baseline {name} has targets of a teacher: name the set's by --teacher FILE")
    return list(dict.fromkeys(names))


def plan_sets(
    distilled: DistilledDataset,
    names: Sequence[str],
    taught: Taught | None,
    protocol: Protocol,
    seed: int,
    device: torch.device,
) -> list[PretrainingSet]:
    """Return the distilled set and the baselines, in the order of their rows.

    Random images are drawn anew for every repeat, all else is the same for all.

    Args:
        names: of baselines, from `names_of`.
        taught: real images, for baselines with targets.
        seed: of every draw.
        device: where the teacher computes.
    """
    assert distilled.targets is not None
    own = TrainingSet(distilled.images, distilled.labels, distilled.targets, source="static")
    count, outputs = int(distilled.stored.sum()), distilled.targets.shape[1]
    sets = [PretrainingSet(DISTILLED, protocol, count, len(own), outputs, lambda repeat: own)]
    for name in names:
        if name == SCRATCH:
            sets.append(PretrainingSet(name, protocol, 0, 0, 0, None))
            continue
        assert taught is not None
        rows = _rows_of(name.removesuffix(TARGETS), taught, count, seed)
        outputs, images = taught.teacher.network.feature_dim, len(rows(0))
        shorter = full_protocol(protocol, images, [len(own)]) if name == FULL + TARGETS else protocol
        source = _source(taught, rows, device, fixed=name != RANDOM + TARGETS)
        sets.append(PretrainingSet(name, shorter, images, images, outputs, source))
    return sets


def _rows_of(method: str, taught: Taught, count: int, seed: int) -> Callable[[int], Tensor]:
    """Return what chooses the real images of a repeat: positions int64 [n], as many as the set stores."""
    total = len(taught.real)

    def random(repeat: int) -> Tensor:
        return torch.randperm(total, generator=generator(seed, "transfer-random", repeat))[:count]

    @functools.cache
    def centres() -> Tensor:
        return taught.near_centres(min(count, total), seed)

    ways: dict[str, Callable[[int], Tensor]] = {
        RANDOM: random,
        K_MEANS: lambda repeat: centres(),
        FULL: lambda repeat: torch.arange(total),
    }
    return ways[method]


def _source(
    taught: Taught, rows: Callable[[int], Tensor], device: torch.device, fixed: bool
) -> Callable[[int], TrainingSet]:
    """Return a function from a repeat to its training set, which is kept where it is the same for all."""
    drawn = functools.lru_cache(maxsize=1)(lambda repeat: taught.set_of(rows(repeat), device))
    return (lambda repeat: drawn(0)) if fixed else drawn
