"""Evaluation of a loaded set: fresh students on it and on its baselines, all else equal."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from dsdistill.config.unlabelled import check_labelled
from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines, controls
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.config import EvaluationConfig, RealData
from dsdistill.evaluation.estimate import WORTHWHILE, estimate
from dsdistill.evaluation.exam import Exam
from dsdistill.evaluation.execution import Execution, ExecutionConfig
from dsdistill.evaluation.notices import notices
from dsdistill.evaluation.plan import PlannedRow, PlannedSet, plan_rows, plan_sets
from dsdistill.evaluation.row_parts import RowParts
from dsdistill.evaluation.rows import Row
from dsdistill.evaluation.selector import Selector
from dsdistill.evaluation.start import EvaluationStart
from dsdistill.evaluation.step_counter import StepCounter
from dsdistill.evaluation.trainers import Shared, Trainer, trainer_of
from dsdistill.networks import check_network
from dsdistill.protocol import Protocol
from dsdistill.runtime.callbacks import Observer, StopRun
from dsdistill.runtime.notice import once
from dsdistill.runtime.ranks import Ranks
from dsdistill.synthetic.distilled_dataset import DistilledDataset
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
    known = Shared(
        distilled, data.task, protocol, config.seed, exam, students, teacher, labeller, config.coding
    )
    trainers = {name: trainer_of(name, execution, known) for name in networks}
    selector = _selector(distilled, data, protocol, execution, config.seed, observer)
    requests = _requests(sets, new)
    choosing = selector.steps(method for method, _ in requests.values())
    ranks, parts = execution.ranks, RowParts(plan, execution.ranks, teacher)
    ranks.check_same(_facts(plan, data, protocol, config))
    total = choosing + sum(planned.set.steps for planned in new)
    steps = StepCounter(observer, total, board=parts.board)
    for sentence in notices(sets, distilled, data, protocol, new, teacher is not None):
        observer.on_notice(sentence)
    short = execution.is_too_short(students)
    observer.on_start(EvaluationStart(data.task.name, protocol, plan, students, steps.total, short))
    if ranks.is_first and (steps.total >= WORTHWHILE or observer.dry):
        timers = {name: each.timer() for name, each in trainers.items()}
        real_bytes = data.train.memory_bytes + data.test.memory_bytes
        choosing_left = selector.steps_left(method for method, _ in requests.values())
        observer.on_estimate(estimate(new, timers, choosing_left, real_bytes, parts.share))

    def trained() -> Iterator[Row]:
        positions = _chosen(selector, requests, steps, ranks)
        sources = {
            each.name: _source(each, known, data, positions.get(each.name))
            for each in sets
            if not each.network
        }
        yield from _rows(plan, trainers, sources, known, steps, parts)

    rows = _gathered(trained(), parts, steps, ranks)
    if observer.stop and len(rows) < len(plan):
        done = f"{len(rows)} of {len(plan)} rows"
        observer.on_notice(f"stopped by a callback with {done}: {observer.stop}; resume=True goes on")
    return rows


def _labeller(
    sets: Sequence[PlannedSet], distilled: DistilledDataset, teacher: Committee | None
) -> Committee | None:
    """Return what labels controls: as the set's labels were made, if they are stored.

    Raises:
        UserError: the set's file names another teacher.
    """
    stored = any(each.labelled and each.labels != "teacher" for each in sets)
    return controls.labeller_of(teacher, distilled.attributes) if teacher and stored else teacher


def _facts(
    plan: Sequence[PlannedRow], data: RealData, protocol: Protocol, config: EvaluationConfig
) -> dict[str, str]:
    """Return what has to be the same in all processes that share an evaluation."""
    rows = [[planned.network, *planned.set.key, planned.earlier is None] for planned in plan]
    options = [rows, protocol.training, protocol.repeats, config.seed, config.leak]
    return {
        "options": json.dumps(options, sort_keys=True, default=str),
        "real images": f"{data.train.fingerprint} {data.test.fingerprint}",
    }


def _chosen(
    selector: Selector, requests: Mapping[str, tuple[str, Tensor]], steps: StepCounter, ranks: Ranks
) -> dict[str, Tensor]:
    """Return the images of the baselines whose images networks choose; the first process has these trained.

    Raises:
        StopRun: a callback asks to stop.
        UserError: as `Selector.choose`.
    """
    positions: dict[str, Tensor] = {}
    with contextlib.suppress(StopRun), steps.board.stops_others():
        if ranks.is_first:
            positions = selector.choose(requests, steps.tick("choosing real images"))
            steps.done = selector.steps(method for method, _ in requests.values())
    positions = ranks.union(positions)
    steps.check()
    return positions


def _rows(
    plan: Sequence[PlannedRow],
    trainers: dict[str, Trainer],
    sources: Mapping[str, Callable[[int], TrainingSet]],
    shared: Shared,
    steps: StepCounter,
    parts: RowParts,
) -> Iterator[Row]:
    """Train the students that this process has, and yield the rows in order as they are complete.

    What a network has compiled goes when its last row is done.

    Raises:
        StopRun: a callback asks to stop.
    """

    def student(place: int) -> str:  # a teacher of the same network is no student
        return "" if plan[place].set.network else plan[place].network

    for network, places in itertools.groupby(range(len(plan)), key=student):
        trainer = trainers.pop(network, None)
        for place in places:
            planned, repeats = plan[place], parts.own(place)
            if repeats:
                start = time.perf_counter()
                if trainer is None:
                    examined = shared.exam.of_teacher()
                else:
                    tick = steps.tick(f"{network} on {planned.set.name}")
                    examined = trainer.examined(planned, sources[planned.set.name], repeats, tick)
                parts.add(place, (examined, time.perf_counter() - start))
                steps.done += planned.set.steps * len(repeats) // planned.set.protocol.repeats
            yield from _complete(parts, steps)


def _gathered(rows: Iterator[Row], parts: RowParts, steps: StepCounter, ranks: Ranks) -> list[Row]:
    """Return all rows; those that were complete before, where a callback stops the evaluation.

    Args:
        rows: those that are complete while this process trains its students.
    """
    gathered: list[Row] = []
    with contextlib.suppress(StopRun), steps.board.stops_others():
        for row in rows:
            gathered.append(row)
    ranks.wait()  # until all have trained theirs
    with contextlib.suppress(StopRun):
        steps.check()
        for row in _complete(parts, steps):
            gathered.append(row)
    return gathered


def _complete(parts: RowParts, steps: StepCounter) -> Iterator[Row]:
    """Yield the rows that have become complete.

    Raises:
        StopRun: a callback asks to stop.
    """
    for planned, row in parts.complete():
        if planned.earlier is None:
            steps.observer.on_row(row)
        yield row
        if planned.earlier is None:
            steps.check()


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
    planned: PlannedSet, shared: Shared, data: RealData, positions: Tensor | None
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
