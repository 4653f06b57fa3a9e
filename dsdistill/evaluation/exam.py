"""The exam of trained students: one pass over the test images, and over real images that it needs besides.

Logits are reduced chunk by chunk: of the test images, only predictions are kept.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import RealDataset
from dsdistill.evaluation.accuracy import TestImages
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.calibration import CalibrationSums, calibration, fitted_temperature
from dsdistill.evaluation.config import RealData
from dsdistill.evaluation.ensembles import Ensemble
from dsdistill.evaluation.execution import Execution
from dsdistill.evaluation.fidelity import FidelitySums, disagreement
from dsdistill.evaluation.leak import IMAGES, leak_of
from dsdistill.evaluation.measures import Calibration, Fidelity, Leak
from dsdistill.runtime.device import autocast
from dsdistill.seeding import generator
from dsdistill.teachers import Committee

VALIDATION = 2000
"""Real training images that temperatures are fitted to, at most; a fifth of a training set that is small."""

_Losses = tuple[Tensor, Tensor]
"""Of one student on n images: the losses, float32 [n], and whether the class was right, bool [n]."""


@dataclass(frozen=True, eq=False)
class Examined:
    """What the exam finds of S students that trained side by side.

    Attributes:
        fractions: of test images that each classifies correctly.
        predictions: int32 [S, N], on the CPU.
        plain, scaled: over the test images; ``scaled`` with each student's temperature, or None.
        temperatures: of each student; empty where there are no images to fit them to.
        validation: images that they were fitted to.
        fidelity: to the teacher, or None.
        members, fresh: of the leak test; empty without one.
        image_bytes: of the real images of each, where it was trained on some that were chosen.
    """

    fractions: list[float]
    predictions: Tensor
    plain: CalibrationSums
    scaled: CalibrationSums | None
    temperatures: list[float]
    validation: int
    fidelity: FidelitySums | None
    members: list[_Losses]
    fresh: list[_Losses]
    image_bytes: list[float] = field(default_factory=list)

    @staticmethod
    def cat(parts: Sequence[Examined]) -> Examined:
        """Join groups of students."""
        scaled = [part.scaled for part in parts if part.scaled]
        fidelity = [part.fidelity for part in parts if part.fidelity]
        return Examined(
            [each for part in parts for each in part.fractions],
            torch.cat([part.predictions for part in parts]),
            CalibrationSums.cat([part.plain for part in parts]),
            CalibrationSums.cat(scaled) if len(scaled) == len(parts) else None,
            [each for part in parts for each in part.temperatures],
            min(part.validation for part in parts),
            FidelitySums.cat(fidelity) if fidelity else None,
            [each for part in parts for each in part.members],
            [each for part in parts for each in part.fresh],
            [each for part in parts for each in part.image_bytes],
        )

    @property
    def calibration(self) -> Calibration | None:
        """The mean calibration; None where logits are not finite."""
        temperature = statistics.mean(self.temperatures) if self.scaled else None
        return calibration(self.plain, self.scaled, temperature, self.validation if self.scaled else 0)

    @property
    def disagreement(self) -> float | None:
        """Percentage of test images to which two students give different classes; None for one student."""
        return disagreement(self.predictions)

    def fidelity_to(self, teacher: str) -> Fidelity | None:
        """Return the mean fidelity to a teacher of this name, if there is one."""
        return self.fidelity.fidelity(teacher) if self.fidelity else None

    @property
    def leak(self) -> Leak | None:
        """The mean leak; None without the test, or where no training image is new to a student."""
        return leak_of(self.members, self.fresh) if self.members else None


@dataclass(frozen=True, eq=False)
class _Sample:
    """Some images of a split in network space, and their places in it."""

    images: TestImages
    rows: Tensor

    @classmethod
    def draw(cls, real: RealDataset, count: int, like: TestImages, draws: torch.Generator) -> _Sample:
        rows = torch.randperm(len(real), generator=draws)[:count]
        return cls(like.of(real.part(rows)), rows)

    def unseen(self, training_set: TrainingSet) -> Tensor:
        """Return which images a student did not train on, bool [n]."""
        seen = training_set.real_rows
        return torch.ones(len(self.rows), dtype=torch.bool) if seen is None else ~torch.isin(self.rows, seen)


class Exam:
    """The images that all students of an evaluation are examined on, and the teacher that they compare to."""

    def __init__(
        self,
        data: RealData,
        preprocess: Preprocess,
        device: torch.device,
        zoom: bool = False,
        seed: int = 0,
        teacher: Committee | None = None,
        leak: bool = False,
    ) -> None:
        """Prepare.

        Args:
            preprocess, device, zoom: see `TestImages`.
            seed: of the draws of images.
            teacher: on the device; it answers in eval mode.
            leak: whether losses on training images are compared with those on test images.
        """
        self.test_images = TestImages(data.test, preprocess, device, zoom)
        self._teacher = dataclasses.replace(teacher, mode="eval") if teacher else None
        self._answers: list[Tensor] = []

        def draw(real: RealDataset, count: int, kind: str) -> _Sample:
            return _Sample.draw(real, count, self.test_images, generator(seed, kind))

        count = min(VALIDATION, len(data.train) // 5)
        self._validation = draw(data.train, count, "validation") if count else None
        size = min(IMAGES, len(data.train), len(data.test)) if leak else 0
        self._members = draw(data.train, size, "leak-train") if leak else None
        self._fresh = draw(data.test, size, "leak-test") if leak else None

    @property
    def chunks(self) -> int:
        """How many chunks of images a student is shown."""
        samples = [each for each in (self._validation, self._members, self._fresh) if each]
        return self.test_images.chunks + sum(each.images.chunks for each in samples)

    def examine(self, ensemble: Ensemble, sets: Sequence[TrainingSet], execution: Execution) -> Examined:
        """Examine students that are trained.

        Args:
            sets: that each was trained on.
        """
        ensemble.train(False)
        temperatures, validation = self._temperatures(ensemble, sets, execution)
        members, fresh = self._losses(ensemble, sets, execution)
        students = ensemble.count
        plain, scaled = CalibrationSums.zeros(students), CalibrationSums.zeros(students)
        fidelity = FidelitySums.zeros(students) if self._teacher else None
        scale = torch.tensor(temperatures or [1.0], device=execution.device)[:, None, None]
        predictions, correct = [], torch.zeros(students, dtype=torch.int64)
        for number, (logits, labels) in enumerate(_logits(ensemble, self.test_images, execution)):
            predicted = logits.argmax(-1)
            correct += (predicted == labels).sum(1).cpu()
            predictions.append(predicted.int().cpu())
            logits = logits.float()
            plain.add(logits, labels)
            if temperatures:
                scaled.add(logits / scale, labels)
            if fidelity:
                fidelity.add(logits, self._answer(number).to(logits.device), labels)
        return Examined(
            [count / len(self.test_images) for count in correct.tolist()],
            torch.cat(predictions, 1),
            plain,
            scaled if temperatures else None,
            temperatures,
            validation,
            fidelity,
            members,
            fresh,
            [each.image_bytes for each in sets if each.image_bytes is not None],
        )

    def of_teacher(self) -> Examined:
        """Examine the teacher itself, as one student.

        Returns:
            its results, without a temperature: it may have been trained on the validation images.
        """
        plain, correct, predictions = CalibrationSums.zeros(1), 0, []
        for number, (_, labels) in enumerate(self.test_images):
            answer = self._answer(number).to(labels.device)
            plain.add(answer[None], labels)
            predictions.append(answer.argmax(1).int().cpu())
            correct += int((answer.argmax(1) == labels).sum())
        fraction = correct / len(self.test_images)
        return Examined([fraction], torch.cat(predictions)[None], plain, None, [], 0, None, [], [])

    def _answer(self, number: int) -> Tensor:
        """Return the teacher's logits for a chunk of test images, float32 [n, K], on the CPU."""
        assert self._teacher is not None
        if not self._answers:
            for images, labels in self.test_images:
                self._answers.append(self._teacher.logits(images)[: len(labels)].float().cpu())
        return self._answers[number]

    def _temperatures(
        self, ensemble: Ensemble, sets: Sequence[TrainingSet], execution: Execution
    ) -> tuple[list[float], int]:
        """Fit each student's temperature to the validation images that are new to it.

        Returns:
            the temperatures, and how many images they rest on; nothing where a student has none.
        """
        if self._validation is None:
            return [], 0
        unseen = [self._validation.unseen(each) for each in sets]
        if not all(bool(each.any()) for each in unseen):
            return [], 0
        logits, labels = _gathered(ensemble, self._validation.images, execution)
        return [
            fitted_temperature(each[new], labels[new]) for each, new in zip(logits, unseen, strict=True)
        ], min(int(each.sum()) for each in unseen)

    def _losses(
        self, ensemble: Ensemble, sets: Sequence[TrainingSet], execution: Execution
    ) -> tuple[list[_Losses], list[_Losses]]:
        """Return the losses of each student on training images that are new to it, and on test images."""
        if self._members is None or self._fresh is None:
            return [], []
        kinds = []
        for sample in (self._members, self._fresh):
            logits, labels = _gathered(ensemble, sample.images, execution)
            own = logits.log_softmax(-1).gather(-1, labels.expand(len(logits), -1)[..., None])[..., 0]
            kinds.append(list(zip(-own, logits.argmax(-1) == labels, strict=True)))
        members, fresh = kinds
        unseen = [self._members.unseen(each) for each in sets]
        return [(loss[new], right[new]) for (loss, right), new in zip(members, unseen, strict=True)], fresh


@torch.inference_mode()
def _logits(
    ensemble: Ensemble, chunks: Iterable[tuple[Tensor, Tensor]], execution: Execution
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the students' logits for each chunk, [S, n, K], and its labels [n]."""
    for images, labels in chunks:
        with autocast(execution.device, execution.precision):
            logits = ensemble.logits(images)
        yield logits[:, : len(labels)], labels


def _gathered(ensemble: Ensemble, images: TestImages, execution: Execution) -> tuple[Tensor, Tensor]:
    """Return the logits for few images, float32 [S, n, K], and their labels [n], on the CPU."""
    pairs = [(logits.float().cpu(), labels.cpu()) for logits, labels in _logits(ensemble, images, execution)]
    return torch.cat([each for each, _ in pairs], 1), torch.cat([labels for _, labels in pairs])
