"""Runs that start from a finished set."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dsdistill.data.preprocess import ZCA, Standardise
from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.from_set import from_set
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.engines import toy


def finished() -> tuple[Task, DistilledSet]:
    task, real = toy()
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    images = real.unit(slice(0, 6)) * 1.5 - 0.2  # a set may leave [0, 1]
    form = MultiFormation(factor=2)
    return task, DistilledSet(images, labels, task.classes, task.preprocess, multi_formation=form)


def test_a_set_gives_images_numbers_and_multi_formation() -> None:
    task, distilled = finished()
    made = from_set(task, distilled, (2, 1, 3), "unit", "set.h5")
    assert torch.equal(made.images, distilled.images)
    assert made.counts == (2, 1, 3)
    assert made.multi_formation == MultiFormation(factor=2)
    made.images.detach().zero_()
    assert distilled.images.any()  # it is not changed
    in_network = from_set(task, distilled, (2, 1, 3), "network", "set.h5")
    torch.testing.assert_close(in_network.images.detach(), task.preprocess(distilled.images))
    torch.testing.assert_close(in_network.unit_images(), distilled.images)


def test_a_set_of_another_task_is_refused() -> None:
    task, distilled = finished()
    replace = dataclasses.replace
    _, real = toy()
    cases = {
        "set.h5 has classes a, b, c, and toy has a, c, b": replace(task, classes=("a", "c", "b")),
        "set.h5 has images of 1x12x12, and this run has 1x24x24: pass --size 12": replace(task, size=24),
        "for preprocessing standardise, and this run has standardise of other constants": replace(
            task, preprocess=Standardise.of((0.1,), (0.3,))
        ),
        "this run has zca: pass --set data.zca=false": replace(task, preprocess=ZCA.fit(real.images)),
    }
    for said, other in cases.items():
        with pytest.raises(UserError, match=said) as caught:
            from_set(other, distilled, (2, 1, 3), "unit", "set.h5")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="has 1 to 3 images per class, and this run 2: leave out --ipc"):
        from_set(task, distilled, (2, 2, 2), "unit", "set.h5")


def test_a_set_of_compensators_is_refused() -> None:
    task, real = toy()
    labels = torch.arange(3)
    added = torch.zeros(2, *task.shape)
    distilled = DistilledSet(
        real.unit(slice(0, 3)), labels, task.classes, task.preprocess, compensators=added
    )
    with pytest.raises(UserError, match="has compensators, which no run goes on from"):
        from_set(task, distilled, (1, 1, 1), "unit", "set.h5")
