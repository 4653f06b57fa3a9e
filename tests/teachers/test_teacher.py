"""Teachers from files of experts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from dsdistill.data.preprocess import Standardise
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.teachers import load_teachers
from dsdistill.teachers.reference import parse_references
from dsdistill.teachers.teacher import Teacher
from tests.helpers.expert_files import FINGERPRINT, NETWORK, TASK, states, written
from tests.helpers.labels import noise

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("teachers") / "pool.h5")


def load(pool: Path, ending: str = "", task: Any = TASK, fingerprint: str = FINGERPRINT) -> list[Teacher]:
    return load_teachers(parse_references(f"{pool}{ending}"), task, fingerprint, CPU)


def test_a_teacher_is_the_expert_after_that_epoch(pool: Path) -> None:
    (teacher,) = load(pool, "#1@3")
    network = build_network(NETWORK, 1, 8, 3)
    network.load_state_dict(states(1)[2])
    images = noise(4, 1, 8, 8)
    torch.testing.assert_close(teacher.network(images), network.eval()(images))
    assert teacher.name == f"{NETWORK}, expert 1, epoch 3 of pool.h5"
    assert teacher.epoch == 3
    assert not any(weight.requires_grad for weight in teacher.network.parameters())


def test_the_first_expert_and_the_last_epoch_are_the_default(pool: Path) -> None:
    (teacher,) = load(pool)
    assert (teacher.name.split(", ", 1)[1], teacher.epoch) == ("expert 0, epoch 9 of pool.h5", 9)
    assert [each.epoch for each in load(pool, "#all@2")] == [2, 2]


def test_digests_tell_teachers_apart(pool: Path) -> None:
    digests = [load(pool, ending)[0].digest for ending in ("", "@3", "#1", "@9")]
    assert len(set(digests)) == 3
    assert digests[0] == digests[3]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"classes": ("doll", "ball", "kite")}, ("ball, doll, kite", "doll, ball, kite")),
        ({"size": 16}, ("1x8x8", "1x16x16")),
        ({"preprocess": Standardise.of((0.0,), (1.0,))}, ("preprocessing", "of other constants")),
    ],
)
def test_a_teacher_of_another_task_is_refused_with_both_named(
    pool: Path, changed: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as caught:
        load(pool, task=dataclasses.replace(TASK, **changed))
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_teacher_of_other_images_is_refused_unless_nobody_knows_them(pool: Path) -> None:
    with pytest.raises(UserError, match=r"data set toys \(ffffffff…\), and this run has toys \(eeeeeeee…\)"):
        load(pool, fingerprint="e" * 64)
    assert load(pool, fingerprint="")


@pytest.mark.parametrize(
    ("ending", "sentence"),
    [
        ("@5", "does not hold epoch 5; it holds 0, 2 to 4, 9"),
        ("#2", "holds experts 0 to 1, not expert 2"),
        (".gone", "no file at .*pool.h5.gone"),
    ],
)
def test_a_teacher_that_is_not_there(pool: Path, ending: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load(pool, ending)
