"""The exam: alone or side by side, in chunks of one shape, of images that a student did not train on."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dsdistill.evaluation.accuracy import accuracies
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.ensembles import SingleStudent, StackedStudents
from dsdistill.evaluation.exam import Exam, Examined
from dsdistill.evaluation.execution import CPU, Execution
from tests.helpers.evaluation import PREPROCESS, fresh, real_data, training_set
from tests.helpers.teachers import committee

SET = TrainingSet(*training_set())


def exam(**options: object) -> Exam:
    return Exam(real_data(), PREPROCESS, CPU, **options)  # type: ignore[arg-type]


def test_accuracies_are_those_of_the_test_images_alone() -> None:
    student, here = SingleStudent(fresh(0), Execution()), exam()
    found = here.examine(student, [SET], Execution())
    assert found.fractions == accuracies(student, here.test_images, Execution())
    assert found.disagreement is None
    assert found.leak is None
    assert found.fidelity is None


def test_students_side_by_side_are_examined_as_alone() -> None:
    here = exam(teacher=committee(), leak=True)
    networks = [fresh(0), fresh(1), fresh(2)]
    alone = [here.examine(SingleStudent(each, Execution()), [SET], Execution()) for each in networks]
    together = here.examine(StackedStudents(networks, Execution()), [SET] * 3, Execution())
    joined = Examined.cat(alone)
    assert joined.fractions == together.fractions
    assert joined.disagreement == together.disagreement
    assert joined.disagreement is not None
    assert joined.disagreement > 0
    pairs = [
        (joined.calibration, together.calibration),
        (joined.fidelity_to("it"), together.fidelity_to("it")),
        (joined.leak, together.leak),
    ]
    for one, other in pairs:
        assert one is not None
        assert other is not None
        flat = [_numbers(dataclasses.asdict(each)) for each in (one, other)]
        assert flat[0] == pytest.approx(flat[1], rel=1e-4)


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for each in value.values() for number in _numbers(each)]
    if isinstance(value, list):
        return [number for each in value for number in _numbers(each)]
    return [float(value)] if isinstance(value, int | float) else []


def test_all_images_come_in_chunks_of_one_shape() -> None:
    """What is compiled for the test images suits the others."""
    here = exam(leak=True)
    samples = [here._validation, here._members, here._fresh]
    shapes = {images.shape for images, _ in here.test_images}
    for sample in samples:
        assert sample is not None
        shapes |= {images.shape for images, _ in sample.images}
    assert len(shapes) == 1
    assert here.chunks == 4


def test_images_that_a_student_trained_on_are_left_out() -> None:
    here, student = exam(leak=True), SingleStudent(fresh(0), Execution())
    assert here._validation is not None
    seen = here._validation.rows[:5]
    found = here.examine(student, [dataclasses.replace(SET, real_rows=seen)], Execution())
    assert found.validation == 18 - 5
    (losses, _), (fresh_losses, _) = found.members[0], found.fresh[0]
    assert len(losses) == 90 - 5
    assert len(fresh_losses) == 90
    assert found.leak is not None
    assert found.leak.images == 85


def test_a_temperature_makes_students_no_less_likely() -> None:
    here, network = exam(), fresh(0)
    with torch.no_grad():
        for parameter in network.classifier.parameters():
            parameter *= 30  # sure, and mostly wrong
    found = here.examine(SingleStudent(network, Execution()), [SET], Execution()).calibration
    assert found is not None
    assert found.scaled is not None
    assert found.temperature is not None
    assert found.temperature > 5
    assert found.scaled.nll < found.scores.nll
    assert found.scaled.ece < found.scores.ece


def test_the_teacher_itself_is_examined_in_eval_mode() -> None:
    here, teacher = exam(teacher=committee(mode="train")), committee()
    found = here.of_teacher()
    correct = total = 0
    for images, labels in here.test_images:
        correct += int((teacher.logits(images)[: len(labels)].argmax(1) == labels).sum())
        total += len(labels)
    assert found.fractions == [correct / total]
    assert found.calibration is not None
    assert found.calibration.temperature is None
