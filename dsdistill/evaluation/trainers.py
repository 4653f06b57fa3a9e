"""What trains the students of one network and examines them, row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.ensembles import Ensemble, Ensembles, stackable
from dsdistill.evaluation.estimate import Timer
from dsdistill.evaluation.exam import Exam, Examined
from dsdistill.evaluation.execution import Execution, ExecutionConfig
from dsdistill.evaluation.loss import StudentLoss
from dsdistill.evaluation.plan import PlannedRow
from dsdistill.evaluation.students import StudentTraining, Tick, train_students
from dsdistill.networks import Network, build_network
from dsdistill.protocol import Protocol
from dsdistill.seeding import forked
from dsdistill.synthetic.coded import Coding
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.teachers import Committee


@dataclass(frozen=True, eq=False)
class Shared:
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


@dataclass(frozen=True, eq=False)
class Trainer:
    """Trains and examines the students of one network, row by row."""

    build: Callable[[int], Network]
    stack: bool
    ensembles: Ensembles
    lr: float
    shared: Shared

    def timer(self) -> Timer:
        """Return what times these students."""
        known, shared = (self.build, self.stack, self.ensembles, self.shared.exam), self.shared
        return Timer(*known, shared.distilled, shared.task.mirror, self.lr, shared.teacher)

    def examined(
        self, planned: PlannedRow, source: Callable[[int], TrainingSet], repeats: range, tick: Tick
    ) -> Examined:
        """Return what is found of some students of a row, once they are trained and tested."""
        shared, protocol = self.shared, planned.set.protocol
        transform = protocol.transform_for(shared.task.mirror)
        teacher = shared.teacher if planned.set.labels == "teacher" else shared.labeller
        training = StudentTraining(protocol, transform, shared.seed, self.lr, planned.network, teacher)

        def examine(ensemble: Ensemble, sets: Sequence[TrainingSet]) -> Examined:
            return shared.exam.examine(ensemble, sets, self.ensembles.execution)

        ensembles, stack = self.ensembles, self.stack
        return Examined.cat(
            train_students(self.build, source, examine, training, ensembles, stack, tick, repeats)
        )


def trainer_of(name: str, execution: ExecutionConfig, shared: Shared) -> Trainer:
    """Return what trains the students of a network.

    Raises:
        UserError: the network cannot take the images, or be stacked; or the protocol takes a learned rate
            that the set has not.
    """
    protocol, build = shared.protocol, _builder(name, shared.task, shared.seed)
    return Trainer(
        build,
        _stacked(execution, name, build(0), protocol),
        Ensembles(shared.execution, StudentLoss(protocol.labels)),
        protocol.learning_rate(shared.distilled.lr, name),
        shared,
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
