"""Small tasks, sets and students for the tests of evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dsdistill
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset, Task
from dsdistill.data.selection import random_selection
from dsdistill.evaluation.accuracy import TestImages, accuracies
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.config import EvaluationConfig, RealData
from dsdistill.evaluation.ensembles import Ensemble, Ensembles, SingleStudent
from dsdistill.evaluation.evaluate import evaluate_set
from dsdistill.evaluation.execution import CPU, Execution, ExecutionConfig
from dsdistill.evaluation.loss import StudentLoss
from dsdistill.evaluation.rows import Row
from dsdistill.evaluation.students import StudentTraining, fit, train_students
from dsdistill.networks import Network, build_network
from dsdistill.protocol import Protocol, load_protocol
from dsdistill.runtime.callbacks import Observer
from dsdistill.seeding import forked, generator
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.teachers import Committee

SIZE, CLASSES = 8, 3
NETWORK = (
    "convnet2-w8"  # a third block would normalise maps of 2×2, then average them: hardly anything is left
)
PACKAGE = Path(dsdistill.__file__).parent
PREPROCESS = Standardise.of((0.5,), (0.25,))


def tiny(**changes: object) -> Protocol:
    values: dict[str, object] = {"epochs": 4, "batch_size": 4, "repeats": 2, "lr": 0.05}
    return load_protocol("dm", **{**values, **changes})


def fresh(repeat: int, name: str = NETWORK) -> Network:
    with forked(0, "test", repeat):
        return build_network(name, 1, SIZE, CLASSES)


def real(per_class: int, seed: int = 0, split: str = "train") -> RealDataset:
    """Stripes: class 0 flat, 1 horizontal, 2 vertical, under noise; learnable, but not at once."""
    labels = torch.arange(CLASSES).repeat_interleave(per_class)
    noise = torch.rand(len(labels), 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    stripes = torch.zeros(CLASSES, 1, SIZE, SIZE)
    stripes[1, :, ::2] = stripes[2, :, :, ::2] = 0.5
    pixels = (stripes[labels] + 0.5 * noise).mul(255).to(torch.uint8)
    return RealDataset("stripes", split, pixels, labels, ("flat", "rows", "columns"))


def task(mirror: bool = False, size: int = SIZE) -> Task:
    return Task("stripes", real(1).classes, 1, size, PREPROCESS, mirror)


def real_data(train: int = 30, test: int = 40, mirror: bool = False) -> RealData:
    """So many images of each class to train and to test on."""
    return RealData(task(mirror), real(train), real(test, 1, "test"))


def distilled(per_class: int = 3, soft: bool = False, **attributes: str | int | float) -> DistilledDataset:
    data = real(per_class, seed=5)
    logits = torch.nn.functional.one_hot(data.labels, CLASSES).float() * 3 if soft else None
    images = data.unit(slice(None))
    stored = DistilledSet(images, data.labels, data.classes, PREPROCESS, logits, attributes=attributes)
    return DistilledDataset(stored)


def evaluated(
    protocol: Protocol,
    networks: Sequence[str] = (NETWORK,),
    dataset: DistilledDataset | None = None,
    data: RealData | None = None,
    *,
    stack: bool = False,
    observer: Observer | None = None,
    teacher: Committee | None = None,
    **settings: object,
) -> list[Row]:
    """Evaluate a distilled set of stripes; ``settings`` are those of ``EvaluationConfig``."""
    config = EvaluationConfig(networks=networks, **settings)  # type: ignore[arg-type]
    execution = ExecutionConfig(stack=stack)
    return evaluate_set(
        dataset or distilled(),
        data or real_data(),
        protocol,
        config,
        execution,
        observer=observer,
        teacher=teacher,
    )


def training_set(seed: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    data = real(3, seed)
    return PREPROCESS.to(dtype=dtype)(data.unit(slice(None)).to(dtype)), data.labels


def stripes_to_test() -> TestImages:
    return TestImages(real(40, seed=1, split="test"), PREPROCESS, CPU)


def train_student(
    network: Network,
    images: Tensor,
    labels: Tensor,
    training: StudentTraining,
    repeat: int = 0,
    execution: Execution = Execution(),  # noqa: B008 (frozen)
) -> Network:
    """Train one network, in place, and return it. Floating labels are logits."""
    soft = labels.is_floating_point()
    given = TrainingSet(
        images,
        labels.argmax(1) if soft else labels,
        labels if soft else None,
        source="static" if soft else "hard",
    )
    objective = StudentLoss(training.protocol.labels)
    fit(SingleStudent(network, execution, objective), [given], [repeat], training, execution)
    return network


def student_accuracies(
    training_set: TrainingSet, training: StudentTraining, ensembles: Ensembles, **options: Any
) -> list[float]:
    """Train students of one set as ``train_students`` does; return the accuracy of each on stripes."""
    images = stripes_to_test()

    def examine(ensemble: Ensemble, sets: Sequence[TrainingSet]) -> list[float]:
        return accuracies(ensemble, images, ensembles.execution)

    groups = train_students(fresh, lambda repeat: training_set, examine, training, ensembles, **options)
    return [fraction for group in groups for fraction in group]


def weights(network: Network) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


# Files ------------------------------------------------------------------------------------------------------


def write_digits(path: Path, soft: bool = False, **attributes: str | int | float) -> Path:
    """Write a distilled set: two random digits of each class."""
    task, train = catalog.load(DataConfig(name="digits"), "train")
    chosen = random_selection(train, torch.full((10,), 2), generator(0, "digits"))
    labels = train.labels[chosen]
    logits = torch.nn.functional.one_hot(labels, 10).float() * 2 if soft else None
    origin = {"dataset": "digits", "data": json.dumps({"name": "digits", "size": None, "zca": True})}
    attributes = origin | {"fingerprint": train.fingerprint} | attributes
    images = train.unit(chosen)
    content = DistilledSet(images, labels, train.classes, task.preprocess, logits, attributes=attributes)
    set_file.write(path, content)
    return path


def write_stripes(folder: Path, train_seed: int = 0, test_seed: int = 1) -> str:
    """Write real images; return their name in the catalogue."""
    train, test = real(9, train_seed), real(9, test_seed)
    arrays = {"x_train": train.images, "y_train": train.labels, "x_test": test.images, "y_test": test.labels}
    path = folder / "stripes.npz"
    np.savez(path, classes=train.classes, **{name: each.numpy() for name, each in arrays.items()})
    return f"npz:{path}"
