"""Transfer: students are pre-trained on a set's targets and on baselines, then learn other data."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from dsdistill.compute.memory_format import in_fast_order
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.ensembles import SingleStudent
from dsdistill.evaluation.loss import StudentLoss
from dsdistill.evaluation.measures import Transfer
from dsdistill.evaluation.pretraining import PretrainingSet
from dsdistill.evaluation.rows import Row
from dsdistill.evaluation.start import Start
from dsdistill.evaluation.step_counter import StepCounter
from dsdistill.evaluation.students import StudentTraining, Tick, fit
from dsdistill.evaluation.tuning import DownstreamData, Tuning
from dsdistill.networks import Network, build_network
from dsdistill.protocol import Protocol
from dsdistill.runtime.callbacks import Observer, StopRun
from dsdistill.runtime.device import wait
from dsdistill.runtime.estimate import RunEstimate
from dsdistill.seeding import forked
from dsdistill.text import listing

State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Plan:
    """All that is trained: each network on each set, then on each data set.

    Attributes:
        networks: names of architectures.
        sets: what they are pre-trained on.
        downstream: what they learn then.
        tuning: how they do that.
        channels, size: of all images.
    """

    networks: Sequence[str]
    sets: Sequence[PretrainingSet]
    downstream: Sequence[DownstreamData]
    tuning: Tuning
    channels: int
    size: int

    def transfer(self, data: DownstreamData) -> Transfer:
        """Return what the rows of a data set say of it."""
        return Transfer(
            data.data.task.name,
            data.data.train.fingerprint[:16],
            data.fraction,
            data.labels,
            self.tuning.config.tuning,
            data.data.test.fingerprint[:16],
        )

    def place(self, row: Row) -> tuple[int, int, int]:
        """Return where a row stands in a report."""
        transfers, sets = (
            [self.transfer(data) for data in self.downstream],
            [each.name for each in self.sets],
        )
        assert row.transfer is not None
        return self.networks.index(row.network), transfers.index(row.transfer), sets.index(row.set)

    def known(
        self, network: str, each: PretrainingSet, data: DownstreamData, earlier: Sequence[Row]
    ) -> Row | None:
        """Return the row of an earlier, otherwise identical evaluation."""
        identity = (each.name, network, each.epochs, each.images, each.decoded, self.transfer(data))
        rows = ((row.set, row.network, row.epochs, row.images, row.decoded, row.transfer) for row in earlier)
        return next((row for row, key in zip(earlier, rows, strict=True) if key == identity), None)


@dataclass(frozen=True, repr=False)
class TransferStart(Start):
    """What is known before students are pre-trained."""

    plan: Plan
    steps: int
    """Of all students."""

    def describe(self) -> list[str]:
        """Return the evaluation in a few sentences."""
        plan = self.plan
        if not self.steps:
            return [f"{self.title}: all rows are there already"]
        sets, networks = listing([each.name for each in plan.sets]), listing(list(plan.networks))
        learned = listing([plan.transfer(each).words for each in plan.downstream])
        return [
            f"{self.title}: {self.protocol.repeats} students each ({networks}) pre-trained on {sets}",
            f"then {learned}",
            f"{self.steps:,} steps on {plan.tuning.execution.describe()}",
        ]


def evaluate_transfer(
    plan: Plan, protocol: Protocol, dataset: str, earlier: Sequence[Row], observer: Observer
) -> list[Row]:
    """Pre-train students, teach them the downstream data, and test them after the last step.

    The student of a repeat starts from the same weights on every set, and sees the same labels of a data set.

    Args:
        dataset: that the set was distilled from, for displays.
        earlier: rows of an earlier, otherwise identical evaluation. They are reused, not trained again.
        observer: the callbacks. If one of them stops the evaluation, the rows that follow are left out.

    Returns:
        the rows of each network, by data set and then by set.
    """
    steps = StepCounter(observer, 0)
    students = [
        Students(plan, network, each, steps, earlier) for network in plan.networks for each in plan.sets
    ]
    steps.total = sum(each.total for each in students)
    observer.on_start(TransferStart(dataset, protocol, plan, steps.total))
    if observer.dry:
        observer.on_estimate(estimate(students))
    rows: list[Row] = []
    with contextlib.suppress(StopRun):
        for each in students:
            for row in each.rows():
                rows.append(row)
    if observer.stop and len(rows) < (most := len(students) * len(plan.downstream)):
        done = f"{len(rows)} of {most} rows"
        observer.on_notice(f"stopped by a callback with {done}: {observer.stop}; resume=True goes on")
    return sorted(rows, key=plan.place)


@dataclass(frozen=True, eq=False)
class Students:
    """The students of one network that are pre-trained on one set.

    Attributes:
        steps: of all students, which theirs are added to.
        earlier: rows that are reused.
    """

    plan: Plan
    network: str
    set: PretrainingSet
    steps: StepCounter
    earlier: Sequence[Row]

    @cached_property
    def known(self) -> list[Row | None]:
        """The earlier row of each data set, or None."""
        return [self.plan.known(self.network, self.set, each, self.earlier) for each in self.plan.downstream]

    @property
    def total(self) -> int:
        """The steps that are left to take."""
        missing = self.known.count(None)
        each = self.set.steps + missing * self.plan.tuning.steps
        return self.set.protocol.repeats * each if missing else 0

    def rows(self) -> Iterator[Row]:
        """Yield the row of each data set.

        Raises:
            StopRun: a callback asks to stop.
        """
        yield from (row for row in self.known if row is not None)
        missing = [data for data, row in zip(self.plan.downstream, self.known, strict=True) if row is None]
        if not missing:
            return
        since = time.perf_counter()
        states = [self._pretrained(repeat) for repeat in range(self.set.protocol.repeats)]
        seconds = time.perf_counter() - since
        for data in missing:
            row = self._row(data, states, seconds)
            self.steps.observer.on_row(row)
            yield row
            self.steps.check()

    def build(self, outputs: int, repeat: int) -> Network:
        """Return the untrained student of a repeat on the device, whose features begin alike on every set.

        Some networks draw the weights of their features after those of the classifier, whose number depends
        on the outputs. All therefore begin with the features of the student of the first set.
        """
        device, first = self.plan.tuning.execution.device, self.plan.sets[0].outputs
        network = self._drawn(outputs, repeat)
        if outputs != first:
            network.load_state_dict(_features(self._drawn(first, repeat)), strict=False)
        return in_fast_order(network.to(device), device)

    def _drawn(self, outputs: int, repeat: int) -> Network:
        """Return a network on the CPU with weights that are drawn for a repeat."""
        plan = self.plan
        with forked(plan.tuning.seed, f"student/{self.network}", repeat):
            return build_network(self.network, plan.channels, plan.size, outputs)

    def _pretrained(self, repeat: int) -> State:
        """Return the weights of a repeat's student after its pre-training; none where there is no such."""
        each, tuning = self.set, self.plan.tuning
        if each.source is None:
            return {}
        network = self.build(each.outputs, repeat)
        images = each.source(repeat).to(tuning.execution.device)
        self.pretrain(
            network, images, each.protocol, repeat, self.steps.tick(f"{self.network} on {each.name}")
        )
        self.steps.done += each.steps
        return _features(network)

    def pretrain(
        self, network: Network, images: TrainingSet, protocol: Protocol, repeat: int, tick: Tick
    ) -> None:
        """Train a network, in place, to answer with the targets of images."""
        tuning = self.plan.tuning
        ensemble = SingleStudent(network, tuning.execution, StudentLoss(protocol.labels))
        transform = protocol.transform_for(mirror=False)  # a mirrored image has other targets
        training = StudentTraining(protocol, transform, tuning.seed, network=self.network)
        fit(ensemble, [images], [repeat], training, tuning.execution, tick)

    def _row(self, data: DownstreamData, states: Sequence[State], seconds: float) -> Row:
        """Return the row of a data set, once its students are taught and tested."""
        plan, since = self.plan, time.perf_counter()
        task, transfer, values = data.data.task, plan.transfer(data), list[float]()
        tick = self.steps.tick(f"{self.network} of {self.set.name}, then {task.name}")
        for repeat, state in enumerate(states):
            network = self.build(task.num_classes, repeat)
            network.load_state_dict(state, strict=False)
            values.append(100 * plan.tuning.accuracy(network, data, repeat, tick))
            self.steps.done += plan.tuning.steps
        return Row(
            set=self.set.name,
            network=self.network,
            protocol=self.set.protocol.name,
            epochs=self.set.epochs,
            mean=statistics.mean(values),
            std=statistics.stdev(values) if len(values) > 1 else 0.0,
            values=values,
            images=self.set.images,
            decoded=self.set.decoded,
            seconds=seconds + time.perf_counter() - since,
            transfer=transfer,
        )


def _features(network: Network) -> State:
    """Return the state of a network but for its classifier's."""
    head = {id(each) for each in (*network.classifier.parameters(), *network.classifier.buffers())}
    state = network.state_dict(keep_vars=True)
    return {name: value.detach() for name, value in state.items() if id(value) not in head}


_TIMED = 3
"""Steps that are timed for an estimate, after as many that warm up."""
_PROBED = 512
"""Labels that a probe is timed with, at most; with more it takes as many times as long."""


def estimate(students: Sequence[Students]) -> RunEstimate:
    """Estimate what all students take by a few steps of the first one of each network."""
    timers: dict[str, Timer] = {}
    seconds = 0.0
    for each in students:
        missing = [data for data, row in zip(each.plan.downstream, each.known, strict=True) if row is None]
        if not missing:
            continue
        timer = timers.setdefault(each.network, Timer(each))
        pretrained = timer.pretraining(each.set) if each.set.source else 0.0
        seconds += each.set.protocol.repeats * (pretrained + sum(map(timer.teaching, missing)))
    total = sum(each.total for each in students)
    return RunEstimate(covers="evaluation", amount=total, work="steps of students", seconds=seconds)


@dataclass(frozen=True, eq=False)
class Timer:
    """Times students of one network, each kind of step once.

    Attributes:
        students: of that network; those of its first repeat are timed.
    """

    students: Students
    _known: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)

    def pretraining(self, each: PretrainingSet) -> float:
        """Return the seconds of pre-training a student, a step of which takes as long for every image."""
        return each.steps * min(each.decoded, each.protocol.batch_size) * self._image

    def teaching(self, data: DownstreamData) -> float:
        """Return the seconds of teaching a student a data set, and of testing it."""
        tuning = self.students.plan.tuning
        part, brief, times = data, tuning, 1.0
        if tuning.config.tuning == "probe":
            part = dataclasses.replace(data, fraction=min(data.fraction, _PROBED / len(data.data.train)))
            size, times = part.labels, data.labels / part.labels
        else:
            brief = dataclasses.replace(tuning, config=dataclasses.replace(tuning.config, steps=_TIMED))
            size, times = min(tuning.config.batch_size, data.labels), tuning.steps / _TIMED
        key = (data.data.task.num_classes, size)
        if key not in self._known:
            self._known[key] = self._taught(part, brief)
        taught, tested = self._known[key]
        return times * taught + len(data.test) * tested

    @cached_property
    def _image(self) -> float:
        """The seconds of pre-training on one image."""
        students = self.students
        own, device = students.plan.sets[0], students.plan.tuning.execution.device
        assert own.source is not None
        images, seconds = own.source(0).to(device), 0.0
        brief = dataclasses.replace(own.protocol, epochs=_TIMED, schedule="steps", drop_at=())
        for _ in range(2):
            network, since = students.build(own.outputs, 0), time.perf_counter()
            students.pretrain(network, images, brief, 0, lambda done, total: None)
            wait(device)
            seconds = time.perf_counter() - since
        return seconds / (_TIMED * len(images))

    def _taught(self, data: DownstreamData, tuning: Tuning) -> tuple[float, float]:
        """Return the seconds of teaching a student in so many steps, and of its test on one image."""
        times, device = (0.0, 0.0), tuning.execution.device
        for _ in range(2):
            network = self.students.build(data.data.task.num_classes, 0)
            since = time.perf_counter()
            classify = tuning.teach(network, data, 0, lambda done, total: None)
            wait(device)
            middle = time.perf_counter()
            images, _ = next(iter(data.test))
            with torch.inference_mode():
                classify(images)
            wait(device)
            times = middle - since, (time.perf_counter() - middle) / len(images)
        return times
