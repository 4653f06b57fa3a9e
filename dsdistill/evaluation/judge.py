"""The verdict on a distilled set: fresh students on it and on its baselines, nothing else changed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from dsdistill import networks as zoo
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines as real_sets
from dsdistill.evaluation.cohorts import CPU, Cohorts, Execution, stackable
from dsdistill.evaluation.protocol import Protocol
from dsdistill.evaluation.students import HeldOut, TrainingSet, steps, train_students
from dsdistill.networks import Network
from dsdistill.runtime import Notify, Precision
from dsdistill.seeding import fenced
from dsdistill.storage import DistilledDataset

Progress = Callable[[str, int, int], None]
"""Called with (what is being trained, steps done, steps in all)."""

Auto = Literal["auto"]

# Pixels that the students of one network see (epochs × images × H × W × students) before compiling pays.
# Compiling a small network takes 20 to 60 s on two cores and saves a quarter to a third of each step.
COMPILE_PIXELS = {"cpu": 2 * 10**8, "cuda": 10**10}


@dataclass(frozen=True)
class Row:
    """Test accuracy of one network's students on one training set, in percent.

    Attributes:
        set: "distilled", or the name of a baseline.
        std: sample standard deviation over the students (n - 1 in the denominator); 0 for one student.
        values: one per student, in the order of the repeats.
        images: that the set stores, and that a baseline takes.
        decoded: that the students train on; more than ``images`` where the set is a multi-formation.
        seconds: of training and testing them all, compilation included.
    """

    set: str
    network: str
    protocol: str
    mean: float
    std: float
    values: list[float]
    images: int
    decoded: int
    seconds: float


def judge(
    distilled: DistilledDataset,
    task: Task,
    train: RealDataset,
    test: RealDataset,
    protocol: Protocol,
    networks: Sequence[str] = (),
    *,
    seed: int = 0,
    device: torch.device = CPU,
    precision: Precision = "fp32",
    compile: bool | Auto = "auto",
    stack: bool | Auto = "auto",
    baselines: Sequence[str] = ("random",),
    notify: Notify = lambda message: None,
    progress: Progress = lambda what, done, total: None,
    finished: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Train ``protocol.repeats`` students per network and set, and test them at the last epoch.

    The student of a repeat starts from the same weights on every set. Soft labels are used where the set has
    them, decoded images where it is a multi-formation. Baselines have hard labels, as many images of each
    class as the set stores, and its preprocessing.

    Args:
        distilled: loaded in network space, decoded.
        task, train, test: the real data; ``train`` is read by baselines only.
        networks: names; the protocol's student where empty.
        compile: "auto" where the work pays for it (``COMPILE_PIXELS``).
        finished: called with every row as soon as there is one.
        stack: train the students of a network together; "auto" on CUDA, for networks that allow it.

    Returns:
        for each network: a row for the distilled set, then one for each baseline.

    Raises:
        UserError: the set does not fit the task, or a name is unknown, or a network cannot take the images.
    """
    check_fit(distilled, task)
    names = list(dict.fromkeys(networks)) or [protocol.student]
    for name in baselines:
        real_sets.check(name)
    for name in names:
        zoo.check(name)
    fresh = {name: _builder(name, task, seed) for name in names}
    stacked = {name: _stacked(stack, name, fresh[name](0), device, protocol) for name in names}
    lr = protocol.learning_rate(distilled.lr)
    augmentation = protocol.augmentation_for(task.mirror)
    held_out = HeldOut(test, distilled.preprocess, device)
    sources = {"distilled": _distilled_sets(distilled)}
    sources |= {name: _baseline_sets(name, distilled, task, train, seed) for name in baselines}

    stored = int(distilled.stored.sum())
    counts = {kind: len(distilled.images) if kind == "distilled" else stored for kind in sources}
    work = {kind: protocol.repeats * steps(protocol, count) for kind, count in counts.items()}
    total, before = len(names) * sum(work.values()), 0
    rows: list[Row] = []
    for name in names:
        pixels = protocol.epochs_run * sum(counts.values()) * task.size**2 * protocol.repeats
        chosen = pixels >= COMPILE_PIXELS[device.type] if compile == "auto" else compile
        cohorts = Cohorts(Execution(device, precision, chosen, notify))
        for kind, sets in sources.items():

            def tick(done: int, _: int, what: str = f"{name} on {kind}", before: int = before) -> None:
                progress(what, before + done, total)

            start = time.perf_counter()
            fractions = train_students(
                fresh[name],
                sets,
                held_out,
                protocol,
                augmentation,
                cohorts,
                seed=seed,
                stack=stacked[name],
                lr=lr,
                tick=tick,
            )
            sizes = stored, counts[kind]
            rows.append(_row(kind, name, protocol.name, fractions, sizes, time.perf_counter() - start))
            finished(rows[-1])
            before += work[kind]
    return rows


def check_fit(distilled: DistilledDataset, task: Task) -> None:
    """Check that a set and real data speak of the same task.

    Raises:
        UserError: classes, channels or size differ.
    """
    if len(distilled.classes) != task.num_classes:
        raise UserError(
            f"the set has {len(distilled.classes)} classes but {task.name} has {task.num_classes}; "
            "judge it on the data set it was distilled from"
        )
    for label, (ours, theirs) in enumerate(zip(distilled.classes, task.classes, strict=True)):
        if ours != theirs:
            raise UserError(
                f"class {label} is {ours!r} in the set but {theirs!r} in {task.name}; "
                "judge it on the data set it was distilled from"
            )
    if (shape := tuple(distilled.images.shape[1:])) != task.shape:
        ours, theirs = ("×".join(map(str, dims)) for dims in (shape, task.shape))
        raise UserError(
            f"the set has images of {ours} but {task.name} is loaded at {theirs} (channels, height, width); "
            "load it with the size and channels it was distilled at"
        )


def _builder(name: str, task: Task, seed: int) -> Callable[[int], Network]:
    """Return what makes the untrained student of a repeat, whatever other networks are judged."""

    def build(repeat: int) -> Network:
        with fenced(seed, f"student/{name}", repeat):
            return zoo.build(name, task.channels, task.size, task.num_classes)

    return build


def _stacked(
    asked: bool | Auto, name: str, network: Network, device: torch.device, protocol: Protocol
) -> bool:
    possible = stackable(network)
    if asked == "auto":
        return possible and device.type == "cuda" and protocol.repeats > 1
    if asked and not possible:
        raise UserError(f"students of {name} cannot be stacked (batch statistics or dropout); use stack auto")
    return asked


def _distilled_sets(distilled: DistilledDataset) -> Callable[[int], TrainingSet]:
    targets = distilled.labels if distilled.soft_labels is None else distilled.soft_labels
    return lambda repeat: (distilled.images, targets)


def _baseline_sets(
    name: str, distilled: DistilledDataset, task: Task, train: RealDataset, seed: int
) -> Callable[[int], TrainingSet]:
    preprocess = distilled.preprocess
    return lambda repeat: real_sets.baseline(name, train, distilled.stored, preprocess, seed, repeat)


def _row(
    kind: str, network: str, protocol: str, fractions: list[float], sizes: tuple[int, int], seconds: float
) -> Row:
    values = [100 * fraction for fraction in fractions]
    return Row(
        set=kind,
        network=network,
        protocol=protocol,
        mean=statistics.mean(values),
        std=statistics.stdev(values) if len(values) > 1 else 0.0,
        values=values,
        images=sizes[0],
        decoded=sizes[1],
        seconds=seconds,
    )
