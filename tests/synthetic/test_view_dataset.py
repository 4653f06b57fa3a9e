"""Stored views as a torch data set of whole batches."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.data import DataLoader

from dsdistill.errors import UserError
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.view_dataset import ViewDataset
from tests.helpers.labels import with_views
from tests.helpers.storage import make


def test_an_item_is_a_batch_as_the_teacher_saw_it() -> None:
    labelled = with_views()
    dataset, views = ViewDataset(labelled), labelled.views
    assert views is not None
    images, logits = dataset[4]
    assert torch.equal(images, views.batch(4).images(DistilledDataset(labelled).images))
    assert torch.equal(logits, views.answers[views.slice(4)])
    assert (images.dtype, logits.dtype, logits.shape) == (torch.float32, torch.float32, (5, 3))
    assert torch.equal(dataset[-1][0], dataset[8][0])
    for number in (9, -10):
        with pytest.raises(IndexError, match=f"no batch {number}: the set holds 9"):
            dataset[number]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stock_loader_takes_it(workers: int) -> None:
    dataset = ViewDataset(with_views())
    batches = list(DataLoader(dataset, batch_size=None, num_workers=workers))
    assert len(batches) == 9
    for number, (images, logits) in enumerate(batches):
        assert torch.equal(images, dataset[number][0])
        assert torch.equal(logits, dataset[number][1])


def test_what_holds_no_logits_of_views_is_refused() -> None:
    with pytest.raises(UserError, match="the set has no views; dsdistill label --views N stores some"):
        ViewDataset(make())
    with pytest.raises(UserError, match="two distances in place of logits"):
        ViewDataset(with_views(encoding="distances"))
    plain = dataclasses.replace(with_views(), views=None)
    assert plain.views is None
