"""The batches of students: which targets they have, mixed like the images, and views as they were stored."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from dsdistill.augment.dsa import Augmentation
from dsdistill.augment.training import Transform
from dsdistill.config.labels import LabelConfig
from dsdistill.evaluation.batches import Batch, ShuffledBatches, TrainingSet, ViewBatches
from dsdistill.protocol import Protocol
from dsdistill.seeding import generator
from tests.helpers.evaluation import CLASSES, SIZE, tiny, training_set
from tests.helpers.teachers import committee, views_of

PLAIN = Transform(Augmentation(operators=()))
LOGITS = torch.randn(9, CLASSES, generator=torch.Generator().manual_seed(4))


def a_set(**changes: object) -> TrainingSet:
    return TrainingSet(*training_set(), **changes)  # type: ignore[arg-type]


def protocol(labels: dict[str, object] | None = None, **changes: object) -> Protocol:
    return tiny(augmentation="none", labels=LabelConfig(**(labels or {})), **changes)  # type: ignore[arg-type]


def shuffled(given: TrainingSet, used: Protocol, *repeats: int, **options: object) -> list[Batch]:
    batches = ShuffledBatches(
        [given] * max(1, len(repeats)), repeats or (0,), used, PLAIN, 7, CLASSES, **options
    )  # type: ignore[arg-type]
    return list(batches.epoch(0))


def order(repeat: int = 0) -> Tensor:
    return torch.randperm(9, generator=generator(7, "students", repeat, 0))


def test_an_epoch_has_every_image_with_its_label_and_weight() -> None:
    given = a_set(weights=torch.arange(9.0))
    batches = shuffled(given, protocol())
    assert [len(batch.images) for batch in batches] == [4, 4, 1]
    assert torch.equal(torch.cat([batch.images for batch in batches]), given.images[order()])
    assert torch.equal(torch.cat([batch.targets["hard"] for batch in batches]), given.labels[order()])
    assert torch.equal(torch.cat([batch.targets["weights"] for batch in batches]), order().float())


def test_students_side_by_side_have_orders_of_their_own() -> None:
    first, *_ = shuffled(a_set(), protocol(), 0, 3)
    assert torch.equal(first.images, a_set().images[torch.cat([order(0)[:4], order(3)[:4]])])


def test_students_side_by_side_see_the_cells_that_each_sees_alone() -> None:
    """PCA: one cell of each image, another one in every epoch."""
    used = protocol({"source": "hard"}, cells=2, crop_scale=(0.5, 1.0))
    transform = used.transform_for(mirror=False)

    def batches(epoch: int, *repeats: int) -> list[Tensor]:
        shuffles = ShuffledBatches([a_set()] * len(repeats), repeats, used, transform, 7, CLASSES)
        return [batch.images for batch in shuffles.epoch(epoch)]

    together, alone = batches(0, 0, 3), [batches(0, repeat) for repeat in (0, 3)]
    for both, *each in zip(together, *alone, strict=True):
        assert torch.equal(both, torch.cat(each))
    assert not torch.equal(alone[0][0], batches(1, 0)[0])


@pytest.mark.parametrize("mixed", ["probabilities", "logits"])
def test_stored_labels_are_mixed_before_or_after_the_softmax(mixed: str) -> None:
    """INFER interpolates logits, all others probabilities at the temperature."""
    labels = {"source": "static", "loss": "kl", "temperature": 30.0, "mixed": mixed}
    used = protocol(labels, mixup=1.0, mixup_beta=0.8, batch_size=9)
    given = a_set(logits=LOGITS, source="static")
    (batch,) = shuffled(given, used)
    own = LOGITS[order()] if mixed == "logits" else (LOGITS[order()] / 30).softmax(1)
    assert used.mixing is not None
    mix = used.mixing.draw(9, SIZE, generator(7, "student-mix", 0, 0, 0))
    assert mix.weight is not None
    share = mix.weight[0].item()
    expected = [share * own[row] + (1 - share) * own[mix.partner[row]] for row in range(9)]
    torch.testing.assert_close(batch.targets[mixed], torch.stack(expected))
    pixels = given.images[order()]
    torch.testing.assert_close(batch.images, share * pixels + (1 - share) * pixels[mix.partner])


def test_only_targets_that_the_loss_reads_are_there() -> None:
    given = a_set(logits=LOGITS, source="static")
    (batch, *_) = shuffled(given, protocol({"source": "static"}))
    assert set(batch.targets) == {"probabilities"}
    (batch, *_) = shuffled(given, protocol({"source": "static", "loss": "mse", "hard_weight": 0.5}))
    assert set(batch.targets) == {"logits", "hard"}
    (batch, *_) = shuffled(given, protocol({"source": "static", "loss": "gift"}))
    assert set(batch.targets) == {"logits", "labels"}


def test_a_teacher_answers_to_the_batch_as_the_student_sees_it() -> None:
    teacher = committee()
    given = a_set(source="teacher")
    for batch in shuffled(given, protocol({"source": "teacher"}, cutmix=1.0), teacher=teacher):
        assert torch.equal(batch.targets["logits"], teacher.logits(batch.images))


def test_a_teacher_in_training_mode_sees_one_student_at_a_time() -> None:
    teacher = committee(mode="train")
    given, used = a_set(source="teacher"), protocol({"source": "teacher"})
    first, *_ = shuffled(given, used, 0, 3, teacher=teacher)
    for images, logits in zip(first.images.chunk(2), first.targets["logits"].chunk(2), strict=True):
        assert torch.equal(logits, teacher.logits(images))
    assert not torch.equal(first.targets["logits"], teacher.logits(first.images))


# Views ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixing", ["cutmix", "mixup"])
def test_a_replayed_batch_is_the_one_that_the_teacher_saw_bit_for_bit(mixing: str) -> None:
    given, teacher = a_set(), committee()
    views = views_of(given.images, given.labels, teacher, mixing=mixing)
    given = dataclasses.replace(given, views=views, source="views")
    batches = ViewBatches([given], protocol({"source": "views"}), 7, CLASSES)
    for epoch in (0, 1, 2):  # two are stored
        numbers = [number for number in range(len(views)) if views.epochs[number] == epoch % 2]
        for batch, number in zip(batches.epoch(epoch), numbers, strict=True):
            assert torch.equal(batch.images, views.batch(number).images(given.images))
            assert torch.equal(batch.targets["logits"], teacher.logits(batch.images))


def test_hard_labels_and_weights_of_views_are_those_of_their_images() -> None:
    given = a_set(weights=torch.arange(9.0))
    views = views_of(given.images, given.labels, committee())
    given = dataclasses.replace(given, views=views, source="views")
    batch, *_ = ViewBatches([given, given], protocol({"source": "views"}), 7, CLASSES).epoch(0)
    rows = views.batch(0).rows
    assert torch.equal(batch.targets["weights"], rows.float().repeat(2))
    assert torch.equal(batch.targets["labels"], given.labels[rows].repeat(2))
    assert torch.equal(batch.targets["partners"], given.labels[rows][views.batch(0).mix.partner].repeat(2))
    one_hot = torch.nn.functional.one_hot(given.labels[rows], CLASSES).float()
    assert torch.allclose(batch.targets["hard"], views.batch(0).mix.targets(one_hot).repeat(2, 1))


@pytest.mark.parametrize("encoding", ["float16", "uint8", "top", "distances"])
def test_relabelled_views_are_answered_anew_and_stored_alike(encoding: str) -> None:
    given, teacher = a_set(), committee()
    views = views_of(given.images, given.labels, teacher, encoding=encoding)
    stored = dataclasses.replace(given, views=views, source="views")
    relabelled = dataclasses.replace(stored, relabelled=True)
    used = protocol({"source": "views"})
    pairs = zip(
        ViewBatches([stored], used, 7, CLASSES).epoch(0),
        ViewBatches([relabelled], used, 7, CLASSES, teacher).epoch(0),
        strict=True,
    )
    for one, other in pairs:  # the same images, so the same answers
        assert one.targets.keys() == other.targets.keys()
        assert all(torch.equal(one.targets[name], other.targets[name]) for name in one.targets)


def test_relabelled_views_of_students_with_images_of_their_own() -> None:
    teacher, first = committee(), a_set()
    views = views_of(first.images, first.labels, teacher)
    sets = [TrainingSet(*training_set(seed), views=views, source="views", relabelled=True) for seed in (5, 6)]
    batch, *_ = ViewBatches(sets, protocol({"source": "views"}), 7, CLASSES, teacher).epoch(0)
    size = len(views.batch(0).rows)
    for place, each in enumerate(sets):
        images = views.batch(0).images(each.images)
        assert torch.equal(batch.images[place * size : (place + 1) * size], images)
        assert torch.equal(batch.targets["logits"][place * size : (place + 1) * size], teacher.logits(images))
    assert batch.images.shape == (2 * size, 1, SIZE, SIZE)
