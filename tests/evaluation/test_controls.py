"""Controls: other images with labels as the set has them, and the teacher that gives these."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.evaluation import controls, evaluate
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.config import EvaluationConfig
from dsdistill.evaluation.plan import plan_sets
from dsdistill.protocol import load_protocol
from dsdistill.runtime.callbacks import Observer
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from tests.helpers.callbacks import Told
from tests.helpers.evaluation import distilled, evaluated, real_data, tiny, training_set
from tests.helpers.teachers import committee, views_of

DEFAULT = EvaluationConfig(baselines=None)


def with_views(**attributes: str) -> DistilledDataset:
    dataset = distilled(**attributes)
    dataset.views = views_of(dataset.images, dataset.labels, committee())
    return dataset


def online() -> dict[str, object]:
    return {"labels": tiny().labels.of("teacher")}


# The plan ---------------------------------------------------------------------------------------------------


def test_soft_labels_bring_their_controls() -> None:
    def names(dataset: DistilledDataset, teacher: bool, **changes: object) -> list[tuple[str, str]]:
        found = plan_sets(dataset, real_data(), tiny(**changes), DEFAULT, committee() if teacher else None)
        return [(each.name, each.regime) for each in found]

    assert names(distilled(), True) == [("distilled", "HL"), ("random", "HL")]
    stored = [("distilled", "SL"), ("random", "HL"), ("distilled-hard", "HL")]
    assert names(distilled(soft=True), False) == stored
    for soft, regime, changes in ((True, "SL", {}), (False, "SL+KD", online())):
        assert names(distilled(soft=soft), True, **changes) == [
            ("distilled", regime),
            ("random", "HL"),
            ("random+labels", regime),
            ("noise+labels", regime),
            ("distilled-hard", "HL"),
            ("teacher", "HL"),
        ]


def test_controls_take_as_many_steps_as_the_set() -> None:
    used = tiny(labels=tiny().labels.of("views"), batch_size=256)
    own, *others = plan_sets(with_views(), real_data(), used, DEFAULT, committee())
    assert own.protocol.batch_size == 4  # of the views
    assert {each.steps for each in others if not each.network} == {own.steps}


@pytest.mark.parametrize(
    ("name", "soft", "teacher", "said"),
    [
        ("random+labels", False, True, "has the set's soft labels, and here it has hard ones"),
        ("distilled-hard", False, True, "is the set itself"),
        ("random+labels", True, False, "needs the teacher: name it by --teacher FILE"),
        ("teacher", True, False, "needs the teacher"),
        ("noise", True, True, "the baseline is called noise\\+labels"),
        ("herdin+labels", True, True, "unknown baseline 'herdin'; did you mean 'herding'"),
    ],
)
def test_controls_that_cannot_be_are_refused(name: str, soft: bool, teacher: bool, said: str) -> None:
    config = EvaluationConfig(baselines=[name])
    with pytest.raises(UserError, match=said):
        plan_sets(distilled(soft=soft), real_data(), tiny(), config, committee() if teacher else None)


@pytest.mark.parametrize(
    ("encoding", "protocol", "sentence"),
    [
        (
            "distances",
            "fkd",
            "'fkd' takes logits, and the set's views store two distances: use --protocol nrr",
        ),
        ("float32", "nrr-dd", "'nrr-dd' takes two distances, and the set's views store logits: label it"),
    ],
)
def test_views_store_what_the_loss_takes(encoding: str, protocol: str, sentence: str) -> None:
    dataset, used = distilled(), load_protocol(protocol)
    dataset.views = views_of(dataset.images, dataset.labels, committee(), encoding=encoding)
    with pytest.raises(UserError, match=sentence):
        plan_sets(dataset, real_data(), used, DEFAULT, committee())
    other = {"fkd": "nrr-dd", "nrr-dd": "fkd"}[protocol]
    assert plan_sets(dataset, real_data(), load_protocol(other), DEFAULT, committee())[0].regime == "SL"


def test_views_are_of_so_many_images() -> None:
    config = EvaluationConfig(baselines=["random@bytes+labels"], real_images={"bytes": 30})
    used = tiny(labels=tiny().labels.of("views"))
    with pytest.raises(UserError, match="has 30 images, and the views are of 9"):
        plan_sets(with_views(), real_data(), used, config, committee())


# Their labels -----------------------------------------------------------------------------------------------


def test_static_labels_are_the_teachers_answers_to_the_images() -> None:
    teacher, plain = committee(), TrainingSet(*training_set())
    found = controls.labelled(lambda repeat: plain, "static", teacher, None)
    assert found(0) is found(3)  # students that share images share their labels
    assert found(0).source == "static"
    assert torch.equal(found(0).logits, teacher.logits(plain.images))  # type: ignore[arg-type]


def test_a_teacher_that_normalises_by_the_batch_never_sees_one_class_alone() -> None:
    images = torch.cat([torch.full((64, 1, 8, 8), value) for value in (-1.0, 0.0, 1.0)])
    plain = TrainingSet(images, torch.arange(3).repeat_interleave(64))
    found = controls.labelled(lambda repeat: plain, "static", committee(mode="train"), None)(0)
    assert found.logits is not None
    assert not torch.allclose(found.logits[:64], found.logits[128:], atol=0.01)  # as batches of one value are


def test_the_committee_of_a_set_is_found_by_its_digest() -> None:
    teacher = committee(1, 2)
    for changes in ({"mode": "train"}, {"mean": "probabilities"}, {"weights": (3.0, 1.0)}):
        used = dataclasses.replace(teacher, **changes)  # type: ignore[arg-type]
        given = used if "weights" in changes else teacher
        found = controls.labeller_of(given, {"teacher_digest": used.digest})
        assert (found.mode, found.mean, found.weights) == (used.mode, used.mean, used.weights)
    assert controls.labeller_of(teacher, {}) is teacher


@pytest.mark.parametrize("images", ["test", "validation"])
def test_a_committee_weighed_by_accuracy_is_found_too(images: str) -> None:
    """By that on test images, as earlier versions weighed, or by that on images held out."""
    plain = committee(1, 2)
    known = [
        dataclasses.replace(each, **{f"{images}_accuracy": share})
        for each, share in zip(plain.teachers, (0.6, 0.2), strict=True)
    ]
    weighed = dataclasses.replace(plain, teachers=known, weights=(0.6, 0.2))
    given = dataclasses.replace(weighed, weights=())
    found = controls.labeller_of(given, {"teacher_digest": weighed.digest})
    assert found.weights == pytest.approx((0.75, 0.25))


def test_another_teacher_than_the_sets_is_refused() -> None:
    attributes = {"teacher_digest": committee(5).digest, "teacher": "convnet of pool.h5"}
    with pytest.raises(UserError, match=r"are by convnet of pool\.h5, and --teacher names convnet2-w8-"):
        controls.labeller_of(committee(6), attributes)


# Evaluated --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["teacher", "static", "views"])
def test_random_images_with_labels_are_those_without(labels: str) -> None:
    """Only labels differ between random and random+labels; and the set equals itself under hard labels."""
    dataset = with_views() if labels == "views" else distilled(soft=labels == "static")
    used = tiny(labels=tiny().labels.of(labels), lr=1e-9)  # type: ignore[arg-type]
    rows = evaluated(used, dataset=dataset, teacher=committee(), baselines=None, leak=True)
    values = {row.set: row.values for row in rows}
    names = ["distilled", "random", "random+labels", "noise+labels", "distilled-hard", "teacher"]
    assert list(values) == names
    # Students that do not move are the same ones everywhere.
    assert values["random"] == values["random+labels"] == values["noise+labels"] == values["distilled"]
    for row in rows[:-1]:
        assert row.calibration is not None
        assert row.calibration.validation >= 10  # a fifth of 90, less those that a student trains on
        assert row.fidelity is not None
        assert row.leak is not None
    teacher = rows[-1]
    assert (teacher.network, teacher.images, len(teacher.values)) == ("convnet2-w8-batch", 0, 1)
    assert teacher.fidelity is None


def test_students_of_a_teacher_are_more_like_it_than_those_of_hard_labels() -> None:
    used = tiny(epochs=10, **online())
    taught, hard = evaluated(used, baselines=["distilled-hard"], teacher=committee(3), dataset=distilled())
    assert taught.fidelity is not None
    assert hard.fidelity is not None
    assert taught.fidelity.divergence < 0.2 * hard.fidelity.divergence


def test_the_full_training_set_has_no_validation_images() -> None:
    (_, full) = evaluated(tiny(epochs=1, repeats=1), baselines=["full"], leak=True)
    assert full.calibration is not None
    assert (full.calibration.temperature, full.calibration.validation, full.leak) == (None, 0, None)


def test_a_teacher_of_the_students_network_is_tested_and_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "WORTHWHILE", 0)
    seen: list[Any] = []
    teacher, protocol = committee(), tiny(epochs=1, repeats=1, **online())
    alone, tested = evaluated(
        protocol,
        [teacher.teachers[0].architecture],
        baselines=["teacher"],
        teacher=teacher,
        observer=Observer([Told(estimated=seen.append)]),
    )
    assert (alone.set, tested.set, tested.images) == ("distilled", "teacher", 0)
    assert alone.network == tested.network
    assert seen[0].amount == protocol.steps(alone.decoded)
