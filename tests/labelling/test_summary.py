"""What a labelling says of itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from dsdistill.labelling import summary
from dsdistill.labelling.labelled import labelled
from dsdistill.labelling.summary import LabelSummary, agreement
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.labels import committee, config, with_views
from tests.helpers.storage import make

EXAMPLE = LabelSummary(Path("a.h5"), "views", "a teacher", 100, 3000, 0.8125, 78_400, 250_000)


def test_bytes_are_told_in_all_and_for_each_image() -> None:
    assert EXAMPLE.rows() == [
        ("file", "a.h5"),
        ("labels", "3,000 views, by a teacher"),
        ("agreement", "81.2 % with the hard labels"),
        ("bytes of images", "78.4 KB, 784 B for each training image"),
        ("bytes of labels", "250 KB, 2.5 KB for each training image"),
    ]
    static = dataclasses.replace(EXAMPLE, kind="static", agreement=None)
    assert static.rows()[1:3] == [
        ("labels", "logits of 100 images, by a teacher"),
        ("bytes of images", "78.4 KB, 784 B for each training image"),
    ]


@pytest.mark.parametrize("mixing", ["none", "mixup"])
def test_the_agreement_of_views_counts_both_labels(mixing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    distilled = with_views(mixing=mixing, views=20)
    views = distilled.views
    assert views is not None
    right = 0
    for number in range(len(views)):
        batch, part = views.batch(number), views.slice(number)
        for place, logits in enumerate(views.answers[part]):
            pair = {int(distilled.labels[batch.rows[i]]) for i in (place, int(batch.mix.partner[place]))}
            right += int(logits.argmax()) in pair
    monkeypatch.setattr(summary, "_AT_ONCE", 7)
    assert agreement(distilled) == right / 240
    assert 0 < right < 240


@pytest.mark.parametrize("factor", [1, 2])
def test_the_agreement_of_static_labels(factor: int) -> None:
    stored = make(multi_formation=MultiFormation(factor=factor))
    found = labelled(stored, committee(), config(views=0))
    data = DistilledDataset(found)
    assert data.soft_labels is not None
    expected = float((data.soft_labels.argmax(1) == data.labels).double().mean())
    assert agreement(found) == expected
    learned = dataclasses.replace(stored, soft_labels=torch.eye(3)[stored.labels])  # of the stored images
    assert agreement(learned) == 1


def test_two_distances_agree_with_nothing() -> None:
    assert agreement(with_views(encoding="distances")) is None
