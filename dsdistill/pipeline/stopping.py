"""The epoch at which a teacher labels best for a set: chosen by students, on real training images held out.

A small set wants an early teacher: its answers are soft and simple. A fully trained one answers with near
certainty, which hard labels say as well (Qin et al., A Label is Worth a Thousand Images, NeurIPS 2024).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dsdistill.data.memory import opened
from dsdistill.data.selection import validation_split
from dsdistill.data.sources import DataSource
from dsdistill.errors import UserError
from dsdistill.evaluation import request as evaluation
from dsdistill.evaluation.config import EvaluationConfig, RealData
from dsdistill.evaluation.evaluate import evaluate_set
from dsdistill.evaluation.execution import ExecutionConfig
from dsdistill.labelling.committee import load_committee
from dsdistill.labelling.config import LabellingConfig
from dsdistill.labelling.labelled import labelled
from dsdistill.labelling.summary import StopPoint
from dsdistill.networks import NetworkFactory
from dsdistill.protocol import load_protocol
from dsdistill.runtime.callbacks import Observer
from dsdistill.runtime.device import full_float32, resolve_device, resolve_precision, training_precision
from dsdistill.runtime.ranks import ALONE, Ranks
from dsdistill.seeding import generator
from dsdistill.storage import origin, set_file
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.teachers import TeacherReference

CANDIDATES = 8
"""Epochs that are tried, at most."""
STUDENTS = 2
"""Students for each of them."""
HELD_OUT = 5000
"""Training images that students are tested on where the teacher held out none, at most; a fifth of them at
most."""


@dataclass(frozen=True)
class StopData:
    """What students are tested on, and how they are trained: see `dsdistill.label`."""

    dataset: DataSource | None = None
    root: str | Path | None = None
    protocol: str | Path | None = None
    network: str | NetworkFactory | None = None
    download: bool = False


@dataclass(frozen=True)
class StopCurve:
    """Accuracies by the teacher's epoch.

    Attributes:
        teacher: without an epoch.
        points: ascending by epoch.
    """

    teacher: TeacherReference
    points: tuple[StopPoint, ...]

    @property
    def best(self) -> StopPoint:
        """The point of the highest accuracy; the earlier one of two equal ones."""
        return max(self.points, key=lambda point: (point.accuracy, -point.epoch))

    @property
    def reference(self) -> str:
        """The teacher at its best epoch, as text."""
        return str(self.teacher.at(self.best.epoch))

    def sentence(self, tested_on: str) -> str:
        """Say which epoch is the best, of accuracies on such images."""
        return (
            f"of {len(self.points)} epochs tried, the teacher's epoch {self.best.epoch} is the best for this "
            f"set: {self.best.accuracy:.1f} % on {tested_on}"
        )

    def to_json(self) -> str:
        """Return the points as JSON."""
        return json.dumps([dataclasses.asdict(point) for point in self.points])


class _Quiet(Observer):
    """Keeps back what an evaluation advises, such as controls, which a choice of an epoch does not need."""

    def on_notice(self, sentence: str) -> None:
        pass


def choose_epoch(
    file: Path,
    config: LabellingConfig,
    source: StopData,
    device: str,
    precision: str,
    observer: Observer,
    ranks: Ranks = ALONE,
) -> StopCurve:
    """Train students on a set with a teacher's static labels after each of several epochs, and compare them.

    Args:
        file: the set.
        config: its teacher, its mode and seed; labels are static here, also where views are to be stored.
        source: the real data, and how students are trained.
        device, precision: of the computation.
        observer: hears of every epoch, and may stop the choice.
        ranks: the processes that share the students of each epoch, and the images that teachers label.

    Raises:
        UserError: there is more than one teacher, or it names an epoch; or the data cannot be read.
    """
    teacher = _one_teacher(config)
    distilled = set_file.read(file)
    torch_device = resolve_device(device)
    arithmetic = training_precision(precision, torch_device, observer.on_notice)
    of_labels = resolve_precision(precision, torch_device)  # in which they will be stored
    execution = ExecutionConfig(torch_device, arithmetic, ranks=ranks)
    dataset = DistilledDataset(dataclasses.replace(distilled, soft_labels=None, views=None))
    name, memory = opened(source.dataset)
    data_config = evaluation.data_config_of(file, dataset, name, source.root, source.download)
    experts = ExpertFile.open(teacher.source)
    with ranks.first_before_others():  # which find decoded what the first has decoded
        data = evaluation.read_real_data(dataset, data_config, memory, source.download, observer)
    rows, of_teacher = _held_out(data, experts, config.seed)
    data = dataclasses.replace(data, test=data.train.part(rows))
    protocol = load_protocol(
        source.protocol or _protocol_of(file, distilled), data_config.name, dataset.ipc, repeats=STUDENTS
    )
    network = evaluation.students_of(source.network or (), dataset, protocol)
    students = EvaluationConfig(networks=network[:1], baselines=(), labels="static", seed=config.seed)
    epochs = candidates(experts.epochs, CANDIDATES)
    static = dataclasses.replace(config, weights="equal", views=0, encoding="float16", top=None, keep=1.0)
    points: list[StopPoint] = []
    with full_float32():
        for place, epoch in enumerate(epochs):
            observer.on_progress("choosing the teacher's epoch", place, len(epochs))
            stopped = dataclasses.replace(static, teachers=(str(teacher.at(epoch)),))
            committee = load_committee(distilled, stopped, torch_device, of_labels)
            candidate = DistilledDataset(labelled(distilled, committee, stopped, ranks=ranks))
            (row,) = evaluate_set(candidate, data, protocol, students, execution, observer=_Quiet())
            own = committee.teachers[0]
            points.append(StopPoint(epoch, row.mean, row.std, own.test_accuracy, own.validation_accuracy))
            observer.on_info(points[-1].sentence)
            if observer.stop:
                raise UserError(f"stopped before the teacher's epoch was chosen: {observer.stop}")
        observer.on_progress("choosing the teacher's epoch", len(epochs), len(epochs))
    curve = StopCurve(teacher, tuple(points))
    observer.on_notice(curve.sentence(f"{len(data.test)} {of_teacher}, protocol {protocol.name}"))
    return curve


def candidates(stored: Sequence[int], most: int) -> list[int]:
    """Return stored epochs to try: from the first after 0 to the last, evenly on a logarithmic scale.

    >>> candidates(range(0, 101), 5)
    [1, 3, 10, 32, 100]
    """
    epochs = [epoch for epoch in stored if epoch > 0] or list(stored)
    if len(epochs) <= most:
        return epochs
    growth = epochs[-1] / epochs[0]
    targets = [epochs[0] * growth ** (place / (most - 1)) for place in range(most)]
    return sorted({min(epochs, key=lambda epoch: abs(epoch - each)) for each in targets})


def _one_teacher(config: LabellingConfig) -> TeacherReference:
    if len(config.references) != 1:
        raise UserError("an epoch is chosen for one teacher; name the epochs of a committee: FILE@EPOCH,…")
    teacher = config.references[0]
    if teacher.weights or teacher.expert is None:
        raise UserError("an epoch is chosen for one expert of a file; name it, for example FILE#0")
    if teacher.epoch is not None:
        raise UserError(f"{teacher.source}@{teacher.epoch} names an epoch, which stop auto chooses; drop one")
    return teacher


def _protocol_of(file: Path, distilled: DistilledSet) -> str:
    """Return the protocol of the set itself, not that of labels which it has had."""
    own = distilled.attributes.get("own_protocol")
    return str(own) if own else origin.protocol_of(file, distilled.attributes)


def _held_out(data: RealData, teacher: ExpertFile, seed: int) -> tuple[Tensor, str]:
    """Return the training images to test students on, in place of the test images, and what they are.

    They are those that the teacher held out, if it did and was trained on these data; else a random part.

    Returns:
        positions int64 [n], ascending; and words that follow their number.
    """
    train = data.train
    if teacher.holds_out and teacher.metadata.fingerprint == train.fingerprint:
        return validation_split(train)[1], "training images that the teacher held out"
    count = max(1, min(HELD_OUT, len(train) // 5))
    order = torch.randperm(len(train), generator=generator(seed, "stop-held-out"))
    trained_on = (
        "training images held out of the students, but not of the teacher, which was trained on them "
        "(dsdistill experts --set test=validation holds some out)"
    )
    return order[:count].sort().values, trained_on
