"""The verdict on a distilled set: fresh students on it and on its baselines, nothing else changed."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch

from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines as real_sets
from dsdistill.evaluation.ensembles import CPU, Ensembles, Execution, stackable
from dsdistill.evaluation.rows import DISTILLED, DISTILLED_HARD, PLAIN, Row
from dsdistill.evaluation.selector import Selector
from dsdistill.evaluation.students import HeldOut, TrainingSet, steps, train_students
from dsdistill.networks import Network, build_network, check_network
from dsdistill.protocol import Protocol
from dsdistill.runtime.device import Precision
from dsdistill.runtime.notice import Notify, once
from dsdistill.seeding import forked
from dsdistill.synthetic.distilled import DistilledDataset

Progress = Callable[[str, int, int], None]
"""Called with (what is being trained, steps done, steps in all)."""

Auto = Literal["auto"]


# Pixels that the students of one network see (epochs × images × H × W × students) before compiling pays.
# Compiling a small network takes 20 to 60 s on two cores and saves a quarter to a third of each step.
COMPILE_PIXELS = {"cpu": 2 * 10**8, "cuda": 10**10}


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
    affordable: int | None = None,
    scores: bool = False,
    known: Sequence[Row] = (),
    notify: Notify = lambda message: None,
    progress: Progress = lambda what, done, total: None,
    finished: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Train ``protocol.repeats`` students per network and set, and test them at the last epoch.

    The student of a repeat starts from the same weights on every set. Soft labels are used where the set has
    them, decoded images where it is a multi-formation. Baselines have hard labels and the set's
    preprocessing. Those whose images networks choose (see ``Selector``) are chosen once, before the first
    student: they are the same for every network judged.

    Args:
        distilled: loaded in network space, decoded.
        task, train, test: the real data; ``train`` is read by baselines only.
        networks: names; the protocol's student where empty.
        compile: "auto" where the work pays for it (``COMPILE_PIXELS``).
        baselines: see ``dsdistill.evaluation.baselines``.
        affordable: real images for the bytes of the set's file, which baselines ``@bytes`` need to know.
        scores: also train what DD-Ranking's scores compare: where the set has soft labels, students on its
            images with hard ones; where the protocol augments and random is among the baselines, students on
            the set and on random images without augmentation.
        known: rows that were found before, all else equal; what they are of is not trained again.
        finished: called with every new row as soon as there is one.
        stack: train the students of a network together; "auto" on CUDA, for networks that allow it.

    Returns:
        for each network: a row for the distilled set, two where hard labels are tried as well, then one for
        each baseline, then those without augmentation.

    Raises:
        UserError: the set does not fit the task, a name is unknown, a network cannot take the images, or
            a baseline finds too few.
    """
    check_fit(distilled, task)
    baselines = real_sets.expanded(baselines)
    names = list(dict.fromkeys(networks)) or [protocol.student]
    for name in names:
        check_network(name)
    stored = int(distilled.stored.sum())
    counts = {name: real_sets.counts_of(name, train, distilled.stored, affordable) for name in baselines}
    fresh = {name: _builder(name, task, seed) for name in names}
    stacked = {name: _stacked(stack, name, fresh[name](0), device, protocol) for name in names}
    lr = protocol.learning_rate(distilled.lr)
    held_out = HeldOut(test, distilled.preprocess, device)

    own = [DISTILLED, *([DISTILLED_HARD] if scores and distilled.soft_labels is not None else [])]
    sizes = dict.fromkeys(own, len(distilled.images)) | {
        name: int(each.sum()) for name, each in counts.items()
    }
    protocols = real_sets.protocols(protocol, sizes)
    augments = protocol.augmentation_for(task.mirror).operators or protocol.cutmix
    twins = (DISTILLED, real_sets.RANDOM) if scores and augments and real_sets.RANDOM in counts else ()
    for kind in twins:
        sizes[kind + PLAIN], protocols[kind + PLAIN] = sizes[kind], protocols[kind].plain()
    took = {kind: (stored if kind.removesuffix(PLAIN) in own else size, size) for kind, size in sizes.items()}
    earlier = {
        (row.network, row.set, row.protocol, row.epochs, row.images, row.decoded): row for row in known
    }
    there = {
        (name, kind): row
        for name in names
        for kind, each in protocols.items()
        if (row := earlier.get((name, kind, each.name, each.epochs, *took[kind])))
    }
    left = {kind: sum((name, kind) not in there for name in names) for kind in sizes}  # networks
    work = {kind: protocol.repeats * steps(protocols[kind], size) for kind, size in sizes.items()}
    execution, told = Execution(device, precision, notify=notify), once(notify)
    selector = Selector(protocol.student, train, distilled.preprocess.to(device), execution, seed)
    choosing = real_sets.choosing({name: each for name, each in counts.items() if left[name]})
    before = selector.steps(method for method, _ in choosing.values())
    total = before + sum(left[kind] * work[kind] for kind in sizes)
    if left.get(real_sets.WHOLE):
        notify(_passes(left[real_sets.WHOLE] * protocol.repeats, protocols, sizes))
    chosen = selector.choose(choosing, lambda done, _: progress("choosing real images", done, total))
    sources = {kind: _distilled_sets(distilled, hard=kind == DISTILLED_HARD) for kind in own}
    for name, each in counts.items():
        sources[name] = real_sets.training_sets(
            name, train, each, chosen.get(name), distilled.preprocess, seed
        )
    sources |= {kind + PLAIN: sources[kind] for kind in twins}

    rows: list[Row] = []
    for name in names:
        seen = sum(protocols[kind].epochs_run * size for kind, size in sizes.items())
        pixels = seen * task.size**2 * protocol.repeats
        compiles = pixels >= COMPILE_PIXELS[device.type] if compile == "auto" else compile
        ensembles = Ensembles(dataclasses.replace(execution, compile=compiles, notify=told))
        for kind, sets in sources.items():
            if row := there.get((name, kind)):
                rows.append(row)
                continue

            def tick(done: int, _: int, what: str = f"{name} on {kind}", before: int = before) -> None:
                progress(what, before + done, total)

            start = time.perf_counter()
            fractions = train_students(
                fresh[name],
                sets,
                held_out,
                protocols[kind],
                protocols[kind].augmentation_for(task.mirror),
                ensembles,
                seed=seed,
                stack=stacked[name],
                lr=lr,
                tick=tick,
            )
            rows.append(_row(kind, name, protocols[kind], fractions, took[kind], time.perf_counter() - start))
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
        with forked(seed, f"student/{name}", repeat):
            return build_network(name, task.channels, task.size, task.num_classes)

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


def _distilled_sets(distilled: DistilledDataset, hard: bool) -> Callable[[int], TrainingSet]:
    targets = distilled.labels if hard or distilled.soft_labels is None else distilled.soft_labels
    return lambda repeat: (distilled.images, targets)


def _passes(students: int, protocols: Mapping[str, Protocol], sizes: Mapping[str, int]) -> str:
    """Say what the whole training set costs."""
    whole, epochs = sizes[real_sets.WHOLE], protocols[real_sets.WHOLE].epochs
    passes = {kind: students * protocols[kind].epochs_run * size for kind, size in sizes.items()}
    times = passes[real_sets.WHOLE] / passes[DISTILLED]
    by = f"{students} student{'s' if students > 1 else ''}"
    return (
        f"whole: {epochs} epochs of all {whole:,} images, by {by}, "
        f"are {passes[real_sets.WHOLE]:,} image passes, {times:.3g} times those on the distilled set"
    )


def _row(
    kind: str,
    network: str,
    protocol: Protocol,
    fractions: list[float],
    sizes: tuple[int, int],
    seconds: float,
) -> Row:
    values = [100 * fraction for fraction in fractions]
    return Row(
        set=kind,
        network=network,
        protocol=protocol.name,
        epochs=protocol.epochs,
        mean=statistics.mean(values),
        std=statistics.stdev(values) if len(values) > 1 else 0.0,
        values=values,
        images=sizes[0],
        decoded=sizes[1],
        seconds=seconds,
    )
