"""What an evaluation will take: seconds by a few steps of one student of each network, and memory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from dsdistill.config.labels import Source
from dsdistill.evaluation.accuracy import bytes_of_testing, seconds_of_testing
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.ensembles import Ensemble, Ensembles
from dsdistill.evaluation.exam import Exam
from dsdistill.evaluation.plan import PlannedRow, PlannedSet
from dsdistill.evaluation.students import StudentTraining, fit, group_size
from dsdistill.networks import Network
from dsdistill.protocol import Protocol
from dsdistill.runtime.allocations import beside_tensors, peak_of
from dsdistill.runtime.device import process_memory, wait
from dsdistill.runtime.estimate import RunEstimate
from dsdistill.runtime.pace import PaceMeter
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.teachers import Committee

WORTHWHILE = 500
"""Steps of all students below which an evaluation is over before its estimate would be."""

_SECONDS = 0.5  # of timing steps of one size
_TOGETHER, _MOST = 0.25, 100  # seconds of steps that are timed together, and their number at most


@dataclass(frozen=True)
class Cost:
    """What students take: seconds of a step and of a test of a group, those of warming up, and bytes."""

    step: float
    test: float
    warm_up: float
    memory: int


@dataclass(frozen=True, eq=False)
class Timer:
    """Times students of one network on a distilled set, whose images stand for those of any set.

    Attributes:
        build: returns a repeat's untrained network.
        stack: whether students are trained together.
        ensembles: those that the evaluation goes on with, so that nothing is compiled twice.
        exam: of the evaluation.
        distilled: the set.
        mirror: whether a mirrored image keeps its label.
        lr: learned with the set.
        teacher: that labels batches, or None.
    """

    build: Callable[[int], Network]
    stack: bool
    ensembles: Ensembles
    exam: Exam
    distilled: DistilledDataset
    mirror: bool
    lr: float
    teacher: Committee | None = None
    _known: dict[tuple[int, int, str, str], Cost] = field(default_factory=dict)

    def cost(self, planned: PlannedSet) -> Cost:
        """Return what a group of students takes on a set; sets with batches of one size cost the same."""
        protocol = planned.protocol
        batch = min(planned.decoded, protocol.batch_size)
        answers = planned.labels == "teacher" or (planned.labels == "views" and planned.labelled)
        online = "teacher" if answers else ""
        key = (batch, self._group(planned), protocol.augmentation, online)
        if key not in self._known:
            example = self._batch(batch, "teacher" if online else "hard")
            self._known[key] = self._measured([example] * self._group(planned), protocol)
        return self._known[key]

    def seconds(self, planned: PlannedSet) -> float:
        """Return the seconds of all students on a set."""
        cost, groups = self.cost(planned), -(-planned.protocol.repeats // self._group(planned))
        return groups * (planned.protocol.steps(planned.decoded) * cost.step + cost.test)

    def _group(self, planned: PlannedSet) -> int:
        """Return how many students are trained together on a set."""
        side = self.distilled.images.shape[-1]
        return group_size(planned.protocol, planned.decoded, side, self.stack)

    def _batch(self, size: int, source: Source) -> TrainingSet:
        """Return a set of one batch, on the device. Stored labels cost what hard ones do."""
        rows = torch.arange(size) % len(self.distilled.images)
        chosen = TrainingSet(self.distilled.images[rows], self.distilled.labels[rows], source=source)
        return chosen.to(self.ensembles.execution.device)

    def _measured(self, sets: Sequence[TrainingSet], protocol: Protocol) -> Cost:
        execution, students = self.ensembles.execution, len(sets)
        memory = self._memory(sets, protocol)
        ensemble, pace = self._filled(self.ensembles, students), PaceMeter(enough_seconds=_SECONDS)
        while not pace.is_known:
            count = 1 if pace.is_new else max(1, round(_TOGETHER / max(pace.step, _TOGETHER / _MOST)))
            since = time.monotonic()
            self._train(ensemble, sets, protocol, count)
            wait(execution.device)
            pace.add(count, time.monotonic() - since)
        test_images = self.exam.test_images
        first, test = seconds_of_testing(ensemble, test_images, execution)
        test *= self.exam.chunks / test_images.chunks
        return Cost(pace.step, test, pace.warm_up + first, memory)

    def _memory(self, sets: Sequence[TrainingSet], protocol: Protocol) -> int:
        """Return the bytes that students take, with the test images that are kept."""
        execution, device = self.ensembles.execution, self.ensembles.execution.device
        eager = Ensembles(dataclasses.replace(execution, compile=False), self.ensembles.objective)
        step = peak_of(lambda: self._train(self._filled(eager, len(sets)), sets, protocol, 1))
        step += beside_tensors(step, device, execution.compile)
        students = self._filled(eager, len(sets))
        weights = sum(each.nbytes for each in students.parameters)
        # Maps of a whole chunk are blocks so large that the heap gives them back at once.
        test = weights + bytes_of_testing(students, self.exam.test_images, eager.execution)
        test += beside_tensors(0, device, execution.compile)
        others = 2 * weights  # momentum, and the next students
        return max(step, test) + others + self.exam.test_images.resident_bytes

    def _filled(self, ensembles: Ensembles, students: int) -> Ensemble:
        return ensembles.fill([self.build(repeat) for repeat in range(students)])

    def _train(self, ensemble: Ensemble, sets: Sequence[TrainingSet], protocol: Protocol, count: int) -> None:
        """Take so many steps: as many epochs, of one batch each."""
        labels = dataclasses.replace(protocol.labels, phases=(("soft", 1.0),))
        brief = dataclasses.replace(protocol, epochs=count, schedule="steps", drop_at=(), labels=labels)
        transform = protocol.transform_for(self.mirror)
        training = StudentTraining(brief, transform, lr=self.lr, teacher=self.teacher)
        fit(ensemble, sets, range(len(sets)), training, self.ensembles.execution)


def estimate(
    rows: Sequence[PlannedRow], timers: Mapping[str, Timer], choosing: int, data: int, share: float = 1.0
) -> RunEstimate:
    """Estimate an evaluation.

    Args:
        rows: whose students are to be trained.
        timers: by network.
        choosing: steps of the networks that choose real images; they count as steps of a student on them.
        data: bytes of the real images.
        share: of the students' work, that of the process that has most of it.
    """
    rows = [row for row in rows if not row.set.network]  # the teacher is not trained
    amount = sum(row.set.steps for row in rows)
    device = next(iter(timers.values())).ensembles.execution.device
    costs = [timers[row.network].cost(row.set) for row in rows]
    seconds = share * sum(timers[row.network].seconds(row.set) for row in rows)
    if choosing:
        seconds += choosing * max(cost.step for cost in costs)
    return RunEstimate(
        covers="evaluation",
        amount=amount + choosing,
        work="steps of students",
        seconds=seconds,
        warm_up=sum(cost.warm_up for cost in dict.fromkeys(costs)),
        memory_bytes=data + max((cost.memory for cost in costs), default=0),
        process_bytes=process_memory(device),
    )
