"""What is drawn for views: a function of seed, epoch and batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dsdistill.labelling.draws import ViewDraws
from dsdistill.synthetic.views import ViewBatch
from tests.helpers.labels import config


def draws(flip: bool = True, images: int = 12, **options: Any) -> ViewDraws:
    return ViewDraws(config(**options), images, 8, flip)


def same(one: ViewBatch, other: ViewBatch) -> bool:
    pairs = [
        (one.rows, other.rows),
        (one.crops.boxes, other.crops.boxes),
        (one.flips, other.flips),
        (one.mix.partner, other.mix.partner),
        (one.mix.rows, other.mix.rows),
        (one.mix.columns, other.mix.columns),
    ]
    return all(torch.equal(a, b) for a, b in pairs)


def test_every_epoch_holds_every_image_once_in_an_order_of_its_own() -> None:
    epochs = [torch.cat([batch.rows for batch in draws().epoch(epoch)]).tolist() for epoch in range(4)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert [len(batch) for batch in draws().epoch(0)] == [5, 5, 2]
    assert draws().per_epoch == 3
    assert [len(batch) for batch in draws(batch_size=100).epoch(0)] == [12]


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    first, again = draws().epoch(7), draws(views=100).epoch(7)
    assert all(same(one, other) for one, other in zip(first, again, strict=True))
    assert not same(first[0], draws().epoch(8)[0])
    assert not same(first[0], draws(seed=1).epoch(7)[0])
    assert not torch.equal(first[0].mix.partner, first[1].mix.partner)


def test_half_of_the_views_are_mirrored_where_that_is_allowed() -> None:
    flips = torch.cat([batch.flips for batch in draws(images=2000, batch_size=500).epoch(0)])
    assert 0.45 < float(flips.float().mean()) < 0.55
    assert not any(batch.flips.any() for batch in draws(flip=False).epoch(0))


def test_every_batch_is_mixed_in_its_own_way() -> None:
    for mixing, shares in (("cutmix", 10), ("mixup", 100)):  # of cutmix, as many as boxes have areas
        batches = draws(images=400, batch_size=4, mixing=mixing).epoch(0)
        assert len({float(batch.mix.own_share[0]) for batch in batches}) >= shares
    assert all((batch.mix.own_share == 1).all() for batch in draws(mixing="none").epoch(0))


@pytest.mark.parametrize(("keep", "count"), [(1.0, 90), (0.5, 45), (0.1, 9), (0.001, 1)])
def test_a_share_of_the_batches_is_kept(keep: float, count: int) -> None:
    kept = draws(views=30, keep=keep).kept()
    assert kept.shape == (30, 3)
    assert int(kept.sum()) == count
    other = draws(views=30, keep=keep, seed=1).kept()
    assert torch.equal(kept, other) == (keep == 1)
