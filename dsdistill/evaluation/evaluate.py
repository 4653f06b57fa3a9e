"""Evaluation of a loaded set: fresh students on it and on its baselines, all else equal."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines
from dsdistill.evaluation.accuracy import TestImages
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.config import EvaluationConfig, RealData
from dsdistill.evaluation.ensembles import Ensembles, stackable
from dsdistill.evaluation.estimate import WORTHWHILE, Timer, estimate
from dsdistill.evaluation.execution import Execution, ExecutionConfig
from dsdistill.evaluation.loss import StudentLoss
from dsdistill.evaluation.plan import PlannedRow, PlannedSet, plan_rows, plan_sets
from dsdistill.evaluation.rows import FULL, Row
from dsdistill.evaluation.selector import Selector
from dsdistill.evaluation.start import EvaluationStart
from dsdistill.evaluation.students import StudentTraining, Tick, train_students
from dsdistill.networks import Network, build_network, check_network
from dsdistill.protocol import Protocol
from dsdistill.runtime.callbacks import Observer, StopRun
from dsdistill.runtime.notice import once
from dsdistill.seeding import forked
from dsdistill.synthetic.distilled import DistilledDataset
from dsdistill.teachers import Committee


def evaluate_set(
    distilled: DistilledDataset,
    data: RealData,
    protocol: Protocol,
    config: EvaluationConfig = EvaluationConfig(),  # noqa: B008 (frozen)
    execution: ExecutionConfig = ExecutionConfig(),  # noqa: B008
    earlier: Sequence[Row] = (),
    observer: Observer | None = None,
    teacher: Committee | None = None,
) -> list[Row]:
    """Train ``protocol.repeats`` students per network and set, and test them after the last epoch.

    The student of a repeat starts from the same weights on every set. Soft labels are used where the set has
    them, and decoded images where it is a multi-formation. Baselines have hard labels and the set's
    preprocessing. Where networks choose a baseline's images (see ``Selector``), they are chosen once, before
    the first student, and are the same for every network evaluated.

    Args:
        distilled: loaded in network space, decoded.
        earlier: rows of an earlier, otherwise identical evaluation. They are reused, not trained again.
        observer: the callbacks. If one of them stops the evaluation, the rows that follow are left out.
        teacher: on the device that computes; for protocols in which one labels every batch.

    Returns:
        for each network: a row for the distilled set, two where hard labels are evaluated too, then one for
        each baseline, then those without augmentation.

    Raises:
        UserError: the set does not fit the task, a name is unknown, a network cannot take the images, or a
            baseline takes more images than there are.
    """
    observer = observer or Observer()
    check_fit(distilled, data.task)
    networks = list(dict.fromkeys(config.networks)) or [protocol.student]
    for name in networks:
        check_network(name)
    sets = plan_sets(distilled, data, protocol, config, teacher)
    plan = plan_rows(networks, sets, earlier)
    new = [planned for planned in plan if planned.earlier is None]
    pixels = sum(each.image_passes for each in sets) * data.task.size**2 * protocol.repeats
    students = execution.execution(pixels, once(observer.on_notice))
    trainers = {
        name: _trainer(name, distilled, data, protocol, config.seed, execution, students, teacher)
        for name in networks
    }
    selector = _selector(distilled, data, protocol, execution, config.seed, observer)
    requests = _requests(sets, new)
    choosing = selector.steps(method for method, _ in requests.values())
    steps = _StepCounter(observer, choosing + sum(planned.set.steps for planned in new))
    for sentence in _notices(sets, distilled, data, new):
        observer.on_notice(sentence)
    short = execution.is_too_short(students)
    observer.on_start(EvaluationStart(data.task.name, protocol, plan, students, steps.total, short))
    if steps.total >= WORTHWHILE or observer.dry:
        timers = {name: each.timer(distilled) for name, each in trainers.items()}
        real_bytes = data.train.images.nbytes + data.test.images.nbytes
        observer.on_estimate(estimate(new, timers, choosing, real_bytes))

    rows: list[Row] = []
    with contextlib.suppress(StopRun):
        positions = selector.choose(requests, steps.tick("choosing real images"))
        steps.done = choosing
        sources = {
            each.name: _source(each, distilled, data, positions.get(each.name), config.seed) for each in sets
        }
        for row in _rows(plan, trainers, sources, steps):
            rows.append(row)
    if observer.stop and len(rows) < len(plan):
        done = f"{len(rows)} of {len(plan)} rows"
        observer.on_notice(f"stopped by a callback with {done}: {observer.stop}; resume=True goes on")
    return rows


def _trainer(
    name: str,
    distilled: DistilledDataset,
    data: RealData,
    protocol: Protocol,
    seed: int,
    execution: ExecutionConfig,
    students: Execution,
    teacher: Committee | None,
) -> _Trainer:
    """Return what trains the students of a network.

    Raises:
        UserError: the network cannot take the images, or be stacked; or the protocol takes a learned rate
            that the set has not.
    """
    build = _builder(name, data.task, seed)
    images = TestImages(data.test, distilled.preprocess, execution.device, protocol.test_zoom)
    return _Trainer(
        build,
        _stacked(execution, name, build(0), protocol),
        Ensembles(students, StudentLoss(protocol.labels)),
        images,
        data.task,
        seed,
        protocol.learning_rate(distilled.lr, name),
        teacher,
    )


def _rows(
    plan: Sequence[PlannedRow],
    trainers: dict[str, _Trainer],
    sources: Mapping[str, Callable[[int], TrainingSet]],
    steps: _StepCounter,
) -> Iterator[Row]:
    """Yield the rows in order; what a network has compiled goes when its last row is done.

    Raises:
        StopRun: a callback asks to stop.
    """
    for network, planned_rows in itertools.groupby(plan, key=lambda planned: planned.network):
        trainer = trainers.pop(network)
        for planned in planned_rows:
            if planned.earlier is not None:
                yield planned.earlier
                continue
            row = trainer.row(
                planned, sources[planned.set.name], steps.tick(f"{network} on {planned.set.name}")
            )
            steps.observer.on_row(row)
            steps.done += planned.set.steps
            yield row
            steps.check()


def check_fit(distilled: DistilledDataset, task: Task) -> None:
    """Check that a set and real data have the same classes and images of the same shape.

    Raises:
        UserError: classes, channels or size differ.
    """
    if len(distilled.classes) != task.num_classes:
        raise UserError(
            f"the set has {len(distilled.classes)} classes but {task.name} has {task.num_classes}; "
            "evaluate it on the data set it was distilled from"
        )
    for label, (ours, theirs) in enumerate(zip(distilled.classes, task.classes, strict=True)):
        if ours != theirs:
            raise UserError(
                f"class {label} is {ours!r} in the set but {theirs!r} in {task.name}; "
                "evaluate it on the data set it was distilled from"
            )
    if (shape := tuple(distilled.images.shape[1:])) != task.shape:
        ours, theirs = ("×".join(map(str, dims)) for dims in (shape, task.shape))
        raise UserError(
            f"the set has images of {ours} but {task.name} is loaded at {theirs} (channels, height, width); "
            "load it with the size and channels it was distilled at"
        )


@dataclass
class _StepCounter:
    """Adds up the steps of an evaluation, and reports each with those done before it.

    Attributes:
        done: steps before the current task.
    """

    observer: Observer
    total: int
    done: int = 0

    def tick(self, task: str) -> Tick:
        """Return a function to call with the steps done of a task; it raises as `check`."""

        def report(done: int, _: int) -> None:
            self.observer.on_progress(task, self.done + done, self.total)
            if self.done + done < self.total:
                self.check()

        return report

    def check(self) -> None:
        """Stop if a callback asks for it.

        Raises:
            StopRun: it does.
        """
        if self.observer.stop:
            raise self.observer.stop


@dataclass(frozen=True, eq=False)
class _Trainer:
    """Trains and tests the students of one network, row by row."""

    build: Callable[[int], Network]
    stack: bool
    ensembles: Ensembles
    test_images: TestImages
    task: Task
    seed: int
    lr: float
    teacher: Committee | None

    def timer(self, distilled: DistilledDataset) -> Timer:
        """Return what times these students."""
        known = (self.build, self.stack, self.ensembles, self.test_images)
        return Timer(*known, distilled, self.task.mirror, self.lr, self.teacher)

    def row(self, planned: PlannedRow, source: Callable[[int], TrainingSet], tick: Tick) -> Row:
        """Return the row, once its students are trained and tested."""
        start, protocol = time.perf_counter(), planned.set.protocol
        transform = protocol.transform_for(self.task.mirror)
        training = StudentTraining(protocol, transform, self.seed, self.lr, planned.network, self.teacher)
        fractions = train_students(
            self.build, source, self.test_images, training, self.ensembles, self.stack, tick
        )
        values = [100 * fraction for fraction in fractions]
        return Row(
            set=planned.set.name,
            network=planned.network,
            protocol=protocol.name,
            epochs=protocol.epochs,
            mean=statistics.mean(values),
            std=statistics.stdev(values) if len(values) > 1 else 0.0,
            values=values,
            images=planned.set.images,
            decoded=planned.set.decoded,
            seconds=time.perf_counter() - start,
        )


def _builder(name: str, task: Task, seed: int) -> Callable[[int], Network]:
    """Return a function that builds the untrained student of a repeat.

    Its weights do not depend on which other networks are evaluated.
    """

    def build(repeat: int) -> Network:
        with forked(seed, f"student/{name}", repeat):
            return build_network(name, task.channels, task.size, task.num_classes)

    return build


def _stacked(execution: ExecutionConfig, name: str, network: Network, protocol: Protocol) -> bool:
    """Return whether the students of a network are trained together."""
    possible = stackable(network)
    if execution.stack == "auto":
        return possible and execution.device.type == "cuda" and protocol.repeats > 1
    if execution.stack and not possible:
        raise UserError(f"students of {name} cannot be stacked (batch statistics or dropout); use stack auto")
    return execution.stack


def _selector(
    distilled: DistilledDataset,
    data: RealData,
    protocol: Protocol,
    execution: ExecutionConfig,
    seed: int,
    observer: Observer,
) -> Selector:
    device = execution.device
    eager = Execution(device, execution.precision, notify=observer.on_notice)
    return Selector(protocol.student, data.train, distilled.preprocess.to(device), eager, seed)


def _requests(sets: Sequence[PlannedSet], rows: Sequence[PlannedRow]) -> dict[str, tuple[str, Tensor]]:
    """Return method and counts of those baselines of new rows whose images networks choose."""
    names = {planned.set.name for planned in rows}
    return {
        each.name: (baselines.method_of(each.name), each.counts)
        for each in sets
        if each.name in names and each.chosen_by_networks and each.counts is not None
    }


def _source(
    planned: PlannedSet, distilled: DistilledDataset, data: RealData, positions: Tensor | None, seed: int
) -> Callable[[int], TrainingSet]:
    """Return a function from a repeat to its training set."""
    if planned.counts is not None:
        return baselines.training_sets(
            planned.source, data.train, planned.counts, positions, distilled.preprocess, seed
        )
    training_set = TrainingSet(
        distilled.images,
        distilled.labels,
        distilled.soft_labels,
        distilled.sample_weights,
        distilled.views,
        planned.labels,
    )
    return lambda repeat: training_set


def _notices(
    sets: Sequence[PlannedSet], distilled: DistilledDataset, data: RealData, new: Sequence[PlannedRow]
) -> Iterator[str]:
    """Yield what a user should know of the baselines."""
    if sentence := _short_notice(sets, distilled, data):
        yield sentence
    if full := [planned.set for planned in new if planned.set.name == FULL]:
        yield _full_notice(full[0], sets[0], len(full) * full[0].protocol.repeats)


def _short_notice(sets: Sequence[PlannedSet], distilled: DistilledDataset, data: RealData) -> str | None:
    """Say that baselines take fewer images than the set stores, of classes that have no more."""
    stored, real = distilled.stored, data.train.counts
    of_its_size = any(each.counts is not None and "@" not in each.name and each.name != FULL for each in sets)
    label = int((stored - real).argmax())
    if not of_its_size or stored[label] <= real[label]:
        return None
    name, most = data.train.classes[label], int(real[label])
    return f"baselines take all {most} training images of class {name!r}: the set stores {int(stored[label])}"


def _full_notice(full: PlannedSet, distilled: PlannedSet, students: int) -> str:
    """Return a sentence on the cost of training on the full training set."""
    times = full.image_passes / distilled.image_passes
    count = f"{students} student{'s' if students > 1 else ''}"
    return (
        f"{FULL}: {full.protocol.epochs} epochs of all {full.decoded:,} images, by {count}, "
        f"are {students * full.image_passes:,} image passes, {times:.3g} times those on the distilled set"
    )
