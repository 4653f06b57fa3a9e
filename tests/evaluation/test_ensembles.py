"""Ensembles: the logits they count, what can be stacked, and what is compiled how often."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dsdistill.augment.dsa import Augmentation
from dsdistill.augment.training import Transform
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.ensembles import Ensembles, SingleStudent, StackedStudents, stackable
from dsdistill.evaluation.execution import Execution
from dsdistill.evaluation.students import StudentTraining, fit
from dsdistill.protocol import load_protocol
from dsdistill.runtime.cuda_graphs import Backward, Batch
from tests.helpers.evaluation import (
    CLASSES,
    fresh,
    student_accuracies,
    tiny,
    train_student,
    training_set,
    weights,
)


def test_an_ensemble_knows_its_classes() -> None:
    """Also where no image has the last label, and where the classifier is more than a linear layer."""
    network = fresh(0)
    assert StackedStudents([network, fresh(1)], Execution()).classes == CLASSES
    network.classifier = torch.nn.Sequential(torch.nn.Dropout(0.5), network.classifier)
    assert SingleStudent(network, Execution()).classes == CLASSES
    images, labels = training_set()
    some = labels < CLASSES - 1
    cutmix = load_protocol("idc", epochs=7, batch_size=4, lr=0.05, weight_decay=0.01)
    train_student(
        network, images[some], labels[some], StudentTraining(cutmix, Transform(Augmentation(operators=())))
    )
    assert weights(network).isfinite().all()


def test_networks_with_batch_statistics_are_not_stackable() -> None:
    assert stackable(fresh(0))
    assert not stackable(fresh(0, "convnet2-w8-batch"))


@pytest.mark.slow
@pytest.mark.parametrize("cutmix", [0.0, 0.5])
def test_refilled_ensembles_never_recompile(cutmix: float) -> None:
    """Two sets, three students each, two batch shapes: each piece of code is compiled once per shape."""
    compiled: list[tuple[int, ...]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        compiled.append(tuple(x.shape[0] for x in inputs if x.dim() == 4 and x.shape[1] == 1))
        return graph.forward

    class Recording(Execution):
        def prepare(self, function):  # type: ignore[no-untyped-def]
            return torch.compile(function, dynamic=False, backend=backend)

    protocol = tiny(repeats=3, epochs=2, cutmix=cutmix)
    recording, eager = Ensembles(Recording()), Ensembles(Execution())
    for seed in (5, 6):
        common = TrainingSet(*training_set(seed))
        training = StudentTraining(protocol, protocol.transform_for(mirror=False), seed)
        compiled_accuracies, eager_accuracies = (
            student_accuracies(common, training, ensembles) for ensembles in (recording, eager)
        )
        assert compiled_accuracies == pytest.approx(eager_accuracies, abs=0.02)
    assert len(compiled) == 3, compiled  # batches of 4 and of 1, and the test chunk


@pytest.mark.parametrize("count", [1, 2])
def test_students_that_are_replayed_are_the_same(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A fake graph takes the place of CUDA's; the last batch of an epoch has a shape of its own."""
    replayed: list[int] = []

    def capture(backward: Backward, batch: Batch, parameters: Sequence[Tensor]) -> Backward:
        return lambda batch: replayed.append(len(batch["images"])) or backward(batch)  # type: ignore[func-returns-value]

    monkeypatch.setattr("dsdistill.runtime.cuda_graphs.capture_graph", capture)
    images, labels = training_set()
    training = StudentTraining(tiny(epochs=2, batch_size=5), Transform(Augmentation(operators=())))
    ended = []
    for mode in (False, True):
        execution = Execution(cuda_graphs=mode)
        ensemble = Ensembles(execution).fill([fresh(repeat) for repeat in range(count)])
        sets = [TrainingSet(images, labels)] * count
        fit(ensemble, sets, range(count), training, execution)
        ended.append([each.detach().clone() for each in ensemble.parameters])
    assert all(torch.equal(one, other) for one, other in zip(*ended, strict=True))
    assert len(replayed) == training.protocol.steps(len(images))
    assert len(set(replayed)) == 2


def test_students_with_dropout_are_not_replayed() -> None:
    notices: list[str] = []
    network = fresh(0)
    network.add_module("dropout", torch.nn.Dropout(0.5))
    Ensembles(Execution(cuda_graphs=True, notify=notices.append)).fill([network])
    assert notices == ["running without CUDA graphs: the network has dropout"]
