"""Stored views: what is checked, how they are replayed, and which a student's epoch takes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn.functional import interpolate

from dsdistill.data.preprocess import Standardise
from dsdistill.errors import UserError
from dsdistill.seeding import generator
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.views import ViewBatch, Views
from tests.helpers.labels import equal, noise, replaced, views_of, with_views
from tests.helpers.storage import make

SET = make()  # 12 images of 3x8x8 in 3 classes
VIEWS = views_of(SET)


def naive(views: Views, number: int, images: torch.Tensor) -> torch.Tensor:
    """Return a batch as the released code makes it, image by image."""
    part = views.slice(number)
    batch = []
    for view in range(part.start, part.stop):
        top, left, height, width = views.crops[view].tolist()
        box = images[views.rows[view] : views.rows[view] + 1, :, top : top + height, left : left + width]
        whole = interpolate(box, (views.size, views.size), mode="bilinear", align_corners=False)[0]
        batch.append(whole.flip(2) if views.flips[view] else whole)
    partners = [batch[place] for place in views.partners[part].tolist()]
    if views.mixing == "mixup":
        share = float(views.weights[number])
        return torch.stack([share * a + (1 - share) * b for a, b in zip(batch, partners, strict=True)])
    mixed = torch.stack(batch)
    if views.mixing == "cutmix":
        first, end, left, right = views.boxes[number].tolist()
        mixed[:, :, first:end, left:right] = torch.stack(partners)[:, :, first:end, left:right]
    return mixed


@pytest.mark.parametrize("mixing", ["none", "cutmix", "mixup"])
def test_a_replayed_batch_is_cropped_mirrored_and_mixed(mixing: Any) -> None:
    views, images = views_of(SET, mixing=mixing), DistilledDataset(SET).images.double()
    assert views.flips.any()
    assert not views.flips.all()
    for number in range(len(views)):
        found = views.batch(number).images(images)
        torch.testing.assert_close(found, naive(views, number, images), rtol=0, atol=1e-10)


def test_batches_replayed_together_are_those_replayed_alone_bit_for_bit() -> None:
    images = DistilledDataset(SET).images
    batches = [VIEWS.batch(number) for number in range(len(VIEWS))]
    together = ViewBatch.cat(batches).images(images)
    assert torch.equal(together, torch.cat([batch.images(images) for batch in batches]))


def test_batches_follow_one_another_epoch_by_epoch() -> None:
    assert len(VIEWS) == 9
    assert VIEWS.starts.tolist() == [0, 5, 10, 12, 17, 22, 24, 29, 34, 36]
    assert VIEWS.epochs.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (VIEWS.batch_size, VIEWS.per_epoch, VIEWS.epoch_count) == (5, 3, 3)
    for epoch in range(3):
        assert sorted(VIEWS.rows[12 * epoch : 12 * epoch + 12].tolist()) == list(range(12))


def test_a_student_sees_the_epochs_in_order_and_then_again() -> None:
    draws = generator(0, "test")
    assert [VIEWS.schedule(epoch, draws) for epoch in (0, 2, 3)] == [[0, 1, 2], [6, 7, 8], [0, 1, 2]]
    assert VIEWS.schedule(2, draws, most=2) == [0, 1, 2]


def test_a_pool_is_drawn_from_without_replacement() -> None:
    pool = views_of(SET, views=10, keep=0.2)
    assert pool.pool
    assert len(pool) == 6
    epochs = [pool.schedule(0, generator(seed, "test")) for seed in range(20)]
    assert all(len(set(epoch)) == pool.per_epoch == 3 for epoch in epochs)
    assert {number for epoch in epochs for number in epoch} == set(range(6))
    few = pool.schedule(0, generator(0, "test"), most=1)
    assert sorted(few) == [0, 1, 2]
    single = views_of(SET, views=1, keep=0.01)
    assert single.schedule(0, generator(0, "test")) == [0] * single.per_epoch


@pytest.mark.parametrize("mixing", ["none", "cutmix", "mixup"])
def test_columns_hold_all_but_what_another_mixing_needs(mixing: Any) -> None:
    views = views_of(SET, mixing=mixing)
    columns = views.columns()
    expected = {"rows", "crops", "flips", "partners", "starts", "epochs", "answers/values"}
    assert set(columns) - expected == {"none": set(), "cutmix": {"boxes"}, "mixup": {"weights"}}[mixing]
    again = Views.from_columns(columns, views.about(), 3)
    assert equal(again, views)
    images = DistilledDataset(SET).images
    assert torch.equal(again.batch(4).images(images), views.batch(4).images(images))


def test_joined() -> None:
    parts = [views_of(SET, views=count) for count in (1, 3)]
    later = Views.from_columns(
        {
            name: column[3:]
            if name in ("epochs", "boxes")
            else column[3:] - 12
            if name == "starts"
            else column[12:]
            for name, column in parts[1].columns().items()
        },
        parts[1].about(),
        3,
    )
    assert equal(Views.cat([parts[0], later]), parts[1])


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("rows", VIEWS.rows.long(), r"rows must be torch.int32 \[36\]"),
        ("rows", replaced(VIEWS.rows, [3], 12), "an image is outside the set"),
        ("partners", replaced(VIEWS.partners, [11], 2), "a partner outside its batch"),
        ("crops", replaced(VIEWS.crops, [0, 2], 9), "a crop lies outside images of 8×8"),
        ("crops", replaced(VIEWS.crops, [0, 1], -1), "a crop lies outside"),
        ("starts", replaced(VIEWS.starts, [1], 0), "none of them empty"),
        ("epochs", replaced(VIEWS.epochs, [1], 7), "epochs must ascend"),
        ("boxes", replaced(VIEWS.boxes, [0, 1], 9), "a box or a weight"),
        ("boxes", torch.tensor([[6, 2, 0, 8]] * 9, dtype=torch.int16), "a box or a weight"),
        ("weights", replaced(VIEWS.weights, [0], 1.5), "a box or a weight"),
        ("mixing", "blend", "unknown mixing of views 'blend'"),
        ("answers", views_of(SET, views=1).answers, "12 answers do not fit 36 views"),
    ],
)
def test_views_that_make_no_sense(field: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(VIEWS, **{field: value})


def test_columns_that_make_no_sense() -> None:
    columns, about = VIEWS.columns(), VIEWS.about()
    for changed in (
        {key: value for key, value in columns.items() if key != "rows"},
        columns | {"more": columns["rows"]},
        columns | {"flips": columns["flips"] + 1},
    ):
        with pytest.raises(UserError, match=r"^views"):
            Views.from_columns(changed, about, 3)


def test_views_of_another_set_are_refused() -> None:
    labelled = with_views()
    assert labelled.views is not None
    others = {
        "images": labelled.images + noise(*labelled.images.shape),
        "labels": labelled.labels.flip(0).sort().values.clamp(max=1),
        "preprocess": Standardise.of((0.0,) * 3, (1.0,) * 3),
    }
    for field, value in others.items():
        with pytest.raises(UserError, match=r"of the images of another set \([0-9a-f]{8}… in place of"):
            dataclasses.replace(labelled, **{field: value})
    with pytest.raises(UserError, match="the views are of 12 images of 8×8 in 3 classes, and the set has 6"):
        dataclasses.replace(labelled, images=labelled.images[::2], labels=labelled.labels[::2])
    anonymous = dataclasses.replace(labelled.views, digest="")
    dataclasses.replace(labelled, images=labelled.images + 1, views=anonymous)
