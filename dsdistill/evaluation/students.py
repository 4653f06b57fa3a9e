"""Training and testing fresh students: the hot path of an evaluation.

Every draw is a function of (seed, stream, repeat, epoch, batch). So a student is the same whether it is
trained alone, after others or stacked with them, up to rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from dsdistill.augment.training import Transform
from dsdistill.evaluation.batches import Batch, Batches, ShuffledBatches, TrainingSet, ViewBatches
from dsdistill.evaluation.ensembles import Ensemble, Ensembles
from dsdistill.evaluation.execution import Execution
from dsdistill.networks import Network
from dsdistill.protocol import Protocol
from dsdistill.seeding import forked
from dsdistill.teachers import Committee

Result = TypeVar("Result")

Tick = Callable[[int, int], None]
"""Called with (steps done, steps in all) after every epoch; a step of one student counts one."""

_STACKED_PIXELS = 1 << 23  # of one channel, in one batch of all stacked students: 32 × 256 images of 32×32


@dataclass(frozen=True)
class StudentTraining:
    """How students are trained.

    Attributes:
        protocol: optimiser, schedule and epochs.
        transform: the protocol's, for the data set at hand.
        seed: of every draw.
        lr: learned with the set; for protocols whose rate is "learned".
        network: the name of the students' architecture, on which a protocol's rate may depend.
        teacher: labels every batch of sets whose labels come from it.
    """

    protocol: Protocol
    transform: Transform
    seed: int = 0
    lr: float | None = None
    network: str = ""
    teacher: Committee | None = None


def train_students(
    build: Callable[[int], Network],
    training_set: Callable[[int], TrainingSet],
    examine: Callable[[Ensemble, Sequence[TrainingSet]], Result],
    training: StudentTraining,
    ensembles: Ensembles,
    stack: bool = False,
    tick: Tick = lambda done, total: None,
    repeats: Sequence[int] | None = None,
) -> list[Result]:
    """Train students and examine each after its last epoch.

    Args:
        build: returns a repeat's untrained network, on the CPU.
        training_set: returns a repeat's training set; all repeats have equally many images.
        examine: gets students that are trained, and the set of each.
        ensembles: pass the same ones for every set that this architecture is trained on.
        stack: train students together, as many as fit in memory (see ``ensembles``).
        repeats: which students; all ``protocol.repeats`` of them by default.

    Returns:
        what ``examine`` returns, one for each group of students that train side by side, in order.
    """
    execution, protocol = ensembles.execution, training.protocol
    images = training_set(0).images
    most = group_size(protocol, len(images), images.shape[-1], stack)
    chosen = range(protocol.repeats) if repeats is None else repeats
    groups = [chosen[first : first + most] for first in range(0, len(chosen), most)]
    total = len(chosen) * protocol.steps(len(images))
    results: list[Result] = []
    done = 0
    for group in groups:
        sets = _on_device([training_set(repeat) for repeat in group], execution.device)
        ensemble = ensembles.fill([build(repeat) for repeat in group])

        def advance(steps_done: int, _: int, before: int = done) -> None:
            tick(before + steps_done, total)

        fit(ensemble, sets, group, training, execution, advance)
        results.append(examine(ensemble, sets))
        done += len(group) * protocol.steps(len(images))
    return results


def group_size(protocol: Protocol, images: int, side: int, stack: bool) -> int:
    """Return how many students are trained together, at most.

    Args:
        images: that each trains on.
        side: of an image, in pixels.
        stack: whether they may be.
    """
    fitting = max(1, _STACKED_PIXELS // (min(images, protocol.batch_size) * side**2))
    return min(protocol.repeats, fitting) if stack else 1


def fit(
    ensemble: Ensemble,
    sets: Sequence[TrainingSet],
    repeats: Sequence[int],
    training: StudentTraining,
    execution: Execution,
    tick: Tick = lambda done, total: None,
) -> None:
    """Train an ensemble, in place: student r on ``sets[r]`` with the draws of ``repeats[r]``.

    Args:
        sets: on the execution's device, equally many images each.
    """
    protocol, seed = training.protocol, training.seed
    batches = _batches(sets, repeats, training, ensemble.classes)
    rate = protocol.learning_rate(training.lr, training.network)
    total = ensemble.count * protocol.steps(len(sets[0]))
    optimiser = _optimiser(ensemble, protocol, rate, epoch=0)
    ensemble.train(True)
    with forked(seed, "student-noise", *repeats):  # for dropout, which draws from the global generator alone
        for epoch in range(protocol.epochs_run):
            optimiser = _in_epoch(optimiser, ensemble, protocol, rate, epoch)
            done = 0
            for batch in batches[protocol.labels.part(epoch, protocol.epochs_run)].epoch(epoch):
                for part in _parts(batch, protocol, ensemble.count):
                    ensemble.backward(part.images, part.targets, execution, protocol.accumulate)
                optimiser.step()
                optimiser.zero_grad()
                done += 1
            tick(ensemble.count * (epoch + 1) * done, total)


def _batches(
    sets: Sequence[TrainingSet], repeats: Sequence[int], training: StudentTraining, classes: int
) -> dict[str, Batches]:
    """Return the batches of epochs with soft labels and of those with hard ones, as the protocol has them."""

    def shuffled(chosen: Sequence[TrainingSet]) -> Batches:
        return ShuffledBatches(
            chosen, repeats, training.protocol, training.transform, training.seed, classes, training.teacher
        )

    parts = {part for part, _ in training.protocol.labels.phases}
    batches: dict[str, Batches] = {}
    if "soft" in parts:
        viewed = sets[0].source == "views"
        batches["soft"] = (
            ViewBatches(sets, training.protocol, training.seed, classes, training.teacher)
            if viewed
            else shuffled(sets)
        )
    if "hard" in parts:
        known: dict[int, TrainingSet] = {}  # sets that share images go on sharing them
        for each in sets:
            known.setdefault(id(each.images), dataclasses.replace(each, source="hard"))
        batches["hard"] = shuffled([known[id(each.images)] for each in sets])
    return batches


def _parts(batch: Batch, protocol: Protocol, students: int) -> list[Batch]:
    """Split a batch of students that train side by side into parts of each student's images.

    The last batch of an epoch may have fewer parts. Its loss is then divided as if it had all of them, as the
    released code does.
    """
    if protocol.accumulate == 1:
        return [batch]
    size = -(-protocol.batch_size // protocol.accumulate)

    def split(tensor: Tensor) -> list[Tensor]:
        return [part.flatten(0, 1) for part in tensor.unflatten(0, (students, -1)).split(size, dim=1)]

    targets = {name: split(value) for name, value in batch.targets.items()}
    return [
        Batch(images, {name: values[place] for name, values in targets.items()})
        for place, images in enumerate(split(batch.images))
    ]


def _optimiser(ensemble: Ensemble, protocol: Protocol, rate: float, epoch: int) -> Optimizer:
    """Build an optimiser that has taken no step, with the rate and momentum of an epoch.

    Args:
        rate: in the first epoch.
    """
    lr, decay = rate * protocol.decay(epoch), protocol.weight_decay
    groups: list[dict[str, Any]] = [{"params": ensemble.parameters}]
    if protocol.decays == "matrices":
        dims = [
            each.dim() - (ensemble.count > 1) for each in ensemble.parameters
        ]  # stacked along a first axis
        pairs = list(zip(ensemble.parameters, dims, strict=True))
        groups = [
            {"params": [each for each, dim in pairs if dim > 1]},
            {"params": [each for each, dim in pairs if dim <= 1], "weight_decay": 0.0},
        ]
    # It is element-wise, so stacking changes nothing. Fused takes a third of the time of the other
    # implementations, on a CPU too.
    if protocol.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=lr, weight_decay=decay, fused=True)
    if protocol.optimiser == "adam":
        return torch.optim.Adam(groups, lr=lr, weight_decay=decay, fused=True)
    return torch.optim.SGD(
        groups, lr=lr, momentum=protocol.momentum_in(epoch), weight_decay=decay, fused=True
    )


def _in_epoch(
    optimiser: Optimizer, ensemble: Ensemble, protocol: Protocol, rate: float, epoch: int
) -> Optimizer:
    """Return the optimiser of an epoch: a new one after a drop that restarts, else the same at its rate."""
    if protocol.schedule == "restart":
        drops = epoch in protocol.milestones
        return _optimiser(ensemble, protocol, rate, epoch) if drops else optimiser
    for group in optimiser.param_groups:
        group["lr"] = rate * protocol.decay(epoch)
        if "momentum" in group:  # Adam has none
            group["momentum"] = protocol.momentum_in(epoch)
    return optimiser


def _on_device(sets: Sequence[TrainingSet], device: torch.device) -> list[TrainingSet]:
    """Move sets to a device. Sets that share one tensor of images share it there too."""
    moved = {id(each.images): each.to(device) for each in sets}
    return [moved[id(each.images)] for each in sets]
