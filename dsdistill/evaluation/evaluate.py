"""Evaluation of a loaded set: fresh students on it and on its baselines, all else equal."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dsdistill.config.unlabelled import check_labelled
from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines, controls
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.config import EvaluationConfig, RealData
from dsdistill.evaluation.ensembles import Ensemble, Ensembles, stackable
from dsdistill.evaluation.estimate import WORTHWHILE, Timer, estimate
from dsdistill.evaluation.exam import Exam, Examined
from dsdistill.evaluation.execution import Execution, ExecutionConfig
from dsdistill.evaluation.loss import StudentLoss
from dsdistill.evaluation.plan import PlannedRow, PlannedSet, plan_rows, plan_sets
from dsdistill.evaluation.rows import FULL, NOISE, Row
from dsdistill.evaluation.selector import Selector
from dsdistill.evaluation.start import EvaluationStart
from dsdistill.evaluation.step_counter import StepCounter
from dsdistill.evaluation.students import StudentTraining, Tick, train_students
from dsdistill.networks import Network, build_network, check_network
from dsdistill.protocol import Protocol
from dsdistill.runtime.callbacks import Observer, StopRun
from dsdistill.runtime.notice import once
from dsdistill.seeding import forked
from dsdistill.synthetic.coded import Coding
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

    The student of a repeat starts from the same weights on every set. Labels are those that the protocol or
    ``config`` names, and images are decoded where the set is a multi-formation. Baselines have hard labels,
    unless their names say otherwise, and the set's preprocessing. Where networks choose a baseline's images
    (see ``Selector``), they are chosen once, before the first student, and are the same for every network
    evaluated.

    Args:
        distilled: loaded in network space, decoded.
        earlier: rows of an earlier, otherwise identical evaluation. They are reused, not trained again.
        observer: the callbacks. If one of them stops the evaluation, the rows that follow are left out.
        teacher: on the device that computes. It labels every batch where the protocol says so, and controls
            as the set; and students are compared with it.

    Returns:
        for each network: a row for the distilled set, two where hard labels are evaluated too, then one for
        each baseline, then those without augmentation. The teacher's row is the last.

    Raises:
        UserError: the set does not fit the task, a name is unknown, a network cannot take the images, or a
            baseline takes more images than there are; or labels or a teacher are missing.
    """
    observer = observer or Observer()
    check_fit(distilled, data.task)
    protocol.check_size(data.task.size)
    networks = list(dict.fromkeys(config.networks)) or [protocol.student]
    for name in networks:
        check_network(name)
    sets = plan_sets(distilled, data, protocol, config, teacher)
    labeller = _labeller(sets, distilled, teacher)
    plan = plan_rows(networks, sets, earlier)
    new = [planned for planned in plan if planned.earlier is None]
    pixels = sum(each.image_passes for each in sets) * data.task.size**2 * protocol.repeats
    students = execution.execution(pixels, once(observer.on_notice))
    exam = Exam(
        data,
        distilled.preprocess,
        execution.device,
        protocol.test_zoom,
        config.seed,
        teacher,
        config.leak,
    )
    known = _Shared(
        distilled, data.task, protocol, config.seed, exam, students, teacher, labeller, config.coding
    )
    trainers = {name: _trainer(name, execution, known) for name in networks}
    selector = _selector(distilled, data, protocol, execution, config.seed, observer)
    requests = _requests(sets, new)
    choosing = selector.steps(method for method, _ in requests.values())
    steps = StepCounter(observer, choosing + sum(planned.set.steps for planned in new))
    for sentence in _notices(sets, known, data, new):
        observer.on_notice(sentence)
    short = execution.is_too_short(students)
    observer.on_start(EvaluationStart(data.task.name, protocol, plan, students, steps.total, short))
    if steps.total >= WORTHWHILE or observer.dry:
        timers = {name: each.timer() for name, each in trainers.items()}
        real_bytes = data.train.memory_bytes + data.test.memory_bytes
        observer.on_estimate(estimate(new, timers, choosing, real_bytes))

    rows: list[Row] = []
    with contextlib.suppress(StopRun):
        positions = selector.choose(requests, steps.tick("choosing real images"))
        steps.done = choosing
        sources = {
            each.name: _source(each, known, data, positions.get(each.name))
            for each in sets
            if not each.network
        }
        for row in _rows(plan, trainers, sources, known, steps):
            rows.append(row)
    if observer.stop and len(rows) < len(plan):
        done = f"{len(rows)} of {len(plan)} rows"
        observer.on_notice(f"stopped by a callback with {done}: {observer.stop}; resume=True goes on")
    return rows


@dataclass(frozen=True, eq=False)
class _Shared:
    """What the students of all networks share.

    Attributes:
        teacher: labels batches where the labels' source is "teacher".
        labeller: labels controls as the distilled set was labelled.
        coding: how real images are coded that are as many as fit into the set's bytes; None: they are not.
    """

    distilled: DistilledDataset
    task: Task
    protocol: Protocol
    seed: int
    exam: Exam
    execution: Execution
    teacher: Committee | None
    labeller: Committee | None
    coding: Coding | None


def _labeller(
    sets: Sequence[PlannedSet], distilled: DistilledDataset, teacher: Committee | None
) -> Committee | None:
    """Return what labels controls: as the set's labels were made, if they are stored.

    Raises:
        UserError: the set's file names another teacher.
    """
    stored = any(each.labelled and each.labels != "teacher" for each in sets)
    return controls.labeller_of(teacher, distilled.attributes) if teacher and stored else teacher


def _trainer(name: str, execution: ExecutionConfig, shared: _Shared) -> _Trainer:
    """Return what trains the students of a network.

    Raises:
        UserError: the network cannot take the images, or be stacked; or the protocol takes a learned rate
            that the set has not.
    """
    protocol, build = shared.protocol, _builder(name, shared.task, shared.seed)
    return _Trainer(
        build,
        _stacked(execution, name, build(0), protocol),
        Ensembles(shared.execution, StudentLoss(protocol.labels)),
        protocol.learning_rate(shared.distilled.lr, name),
        shared,
    )


def _rows(
    plan: Sequence[PlannedRow],
    trainers: dict[str, _Trainer],
    sources: Mapping[str, Callable[[int], TrainingSet]],
    shared: _Shared,
    steps: StepCounter,
) -> Iterator[Row]:
    """Yield the rows in order; what a network has compiled goes when its last row is done.

    Raises:
        StopRun: a callback asks to stop.
    """

    def student(planned: PlannedRow) -> str:  # a teacher of the same network is no student
        return "" if planned.set.network else planned.network

    for network, planned_rows in itertools.groupby(plan, key=student):
        trainer = trainers.pop(network, None)
        for planned in planned_rows:
            if planned.earlier is not None:
                yield planned.earlier
                continue
            if trainer is None:
                row = _teacher_row(planned, shared)
            else:
                task = f"{network} on {planned.set.name}"
                row = trainer.row(planned, sources[planned.set.name], steps.tick(task))
            steps.observer.on_row(row)
            steps.done += planned.set.steps
            yield row
            steps.check()


def _teacher_row(planned: PlannedRow, shared: _Shared) -> Row:
    """Return the row of the teacher, which is tested as it is."""
    assert shared.teacher is not None
    start, examined = time.perf_counter(), shared.exam.of_teacher()
    epochs = [each.epoch or 0 for each in shared.teacher.teachers]
    return _row(planned, examined, max(epochs), time.perf_counter() - start)


def check_fit(distilled: DistilledDataset, task: Task) -> None:
    """Check that a set and real data have the same classes and images of the same shape.

    Raises:
        UserError: classes, channels or size differ, or there are none.
    """
    remedy = "see --protocol krr-st and --transfer, which teach it other data"
    check_labelled(distilled.classes, "the set", "students of this protocol are classifiers", remedy)
    check_labelled(task.classes, task.name, "accuracy is that of classes", "take data with labels")
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


@dataclass(frozen=True, eq=False)
class _Trainer:
    """Trains and examines the students of one network, row by row."""

    build: Callable[[int], Network]
    stack: bool
    ensembles: Ensembles
    lr: float
    shared: _Shared

    def timer(self) -> Timer:
        """Return what times these students."""
        known, shared = (self.build, self.stack, self.ensembles, self.shared.exam), self.shared
        return Timer(*known, shared.distilled, shared.task.mirror, self.lr, shared.teacher)

    def row(self, planned: PlannedRow, source: Callable[[int], TrainingSet], tick: Tick) -> Row:
        """Return the row, once its students are trained and tested."""
        start, shared, protocol = time.perf_counter(), self.shared, planned.set.protocol
        transform = protocol.transform_for(shared.task.mirror)
        teacher = shared.teacher if planned.set.labels == "teacher" else shared.labeller
        training = StudentTraining(protocol, transform, shared.seed, self.lr, planned.network, teacher)

        def examine(ensemble: Ensemble, sets: Sequence[TrainingSet]) -> Examined:
            return shared.exam.examine(ensemble, sets, self.ensembles.execution)

        groups = train_students(self.build, source, examine, training, self.ensembles, self.stack, tick)
        examined, seconds = Examined.cat(groups), time.perf_counter() - start
        fidelity = examined.fidelity_to(shared.teacher.name) if shared.teacher else None
        row = _row(planned, examined, protocol.epochs, seconds)
        return dataclasses.replace(row, fidelity=fidelity, leak=examined.leak)


def _row(planned: PlannedRow, examined: Examined, epochs: int, seconds: float) -> Row:
    values = [100 * fraction for fraction in examined.fractions]
    return Row(
        set=planned.set.name,
        network=planned.network,
        protocol=planned.set.protocol.name,
        epochs=epochs,
        mean=statistics.mean(values),
        std=statistics.stdev(values) if len(values) > 1 else 0.0,
        values=values,
        images=planned.set.images,
        decoded=planned.set.decoded,
        seconds=seconds,
        regime=planned.set.regime,
        calibration=examined.calibration,
        disagreement=examined.disagreement,
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
    planned: PlannedSet, shared: _Shared, data: RealData, positions: Tensor | None
) -> Callable[[int], TrainingSet]:
    """Return a function from a repeat to its training set."""
    distilled = shared.distilled
    if planned.counts is not None:
        plain = baselines.training_sets(
            planned.source,
            data.train,
            planned.counts,
            positions,
            distilled.preprocess,
            shared.seed,
            shared.coding,
        )
        if not planned.labelled:
            return plain
        assert shared.labeller is not None
        return controls.labelled(plain, planned.labels, shared.labeller, distilled.views)
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
    sets: Sequence[PlannedSet], shared: _Shared, data: RealData, new: Sequence[PlannedRow]
) -> Iterator[str]:
    """Yield what a user should know of the labels and of the baselines."""
    distilled = shared.distilled
    if sets[0].labels == "hard" and distilled.views is not None and shared.protocol.labels.source == "file":
        yield "the set stores views, which this protocol does not train on; pass --labels views to do so"
    if sets[0].regime == "SL" and shared.teacher is None:
        yield (
            "the labels may do the work of the images: --teacher FILE adds random images and noise with "
            "such labels, and the teacher itself"
        )
    if shared.protocol.cells > 1 and any(each.counts is not None for each in sets):
        yield (
            f"protocol {shared.protocol.name!r} shows students one cell of an image at a time, of "
            "baselines' whole images too: a fair comparison evaluates those without cells, by pca-hard"
        )
    if sentence := _short_notice(sets, distilled, data):
        yield sentence
    if full := [planned.set for planned in new if baselines.method_of(planned.set.name) == FULL]:
        yield _full_notice(full[0], sets[0], len(full) * full[0].protocol.repeats)


def _short_notice(sets: Sequence[PlannedSet], distilled: DistilledDataset, data: RealData) -> str | None:
    """Say that baselines take fewer images than the set stores, of classes that have no more."""
    stored, real = distilled.stored, data.train.counts
    others = (FULL, NOISE)
    of_its_size = any(
        each.counts is not None and "@" not in each.name and baselines.method_of(each.name) not in others
        for each in sets
    )
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
