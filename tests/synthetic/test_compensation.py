"""Compensators: counts, decoding and its gradient, and sets that have them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from dsdistill.data.preprocess import ZCA
from dsdistill.errors import UserError
from dsdistill.synthetic.compensation import compensated, naturals_within
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.multi_formation import MultiFormation
from dsdistill.synthetic.set import Space, SyntheticSet
from tests.helpers.clusters import PREPROCESS
from tests.helpers.labels import noise, views_of
from tests.helpers.storage import make, with_compensators


@pytest.mark.parametrize(
    ("classes", "teachers", "ipc", "per_class", "compensators", "stored"),
    [
        (10, 4, 10, 35, 28, 98),
        (10, 4, 50, 175, 140, 490),
        (100, 4, 10, 45, 36, 936),
        (100, 4, 50, 240, 192, 4992),
        (200, 4, 10, 45, 36, 1836),
        (1000, 3, 10, 36, 27, 9027),
        (1000, 3, 50, 196, 147, 49147),
    ],
)
def test_the_published_table_of_counts(
    classes: int, teachers: int, ipc: int, per_class: int, compensators: int, stored: int
) -> None:
    naturals = naturals_within(ipc, teachers, classes)
    images = torch.zeros(classes * naturals, 1, 1, 1)
    learned = SyntheticSet(images, (naturals,) * classes, "unit", PREPROCESS)
    learned.learn_compensators(teachers)
    assert learned.compensators is not None
    assert len(learned.compensators) == compensators
    assert set(learned.decoded_counts) == {per_class}
    made = DistilledSet(
        images,
        learned.labels,
        tuple(map(str, range(classes))),
        PREPROCESS,
        compensators=learned.unit_compensators(),
    )
    assert (made.stored_count, made.decoded_count) == (stored, classes * per_class)
    dataset = DistilledDataset(made)
    assert int(dataset.stored.sum()) == stored <= ipc * classes
    assert dataset.ipc == -(-stored // classes)


@pytest.mark.parametrize(("teachers", "classes", "least"), [(4, 10, 2), (1, 1, 2), (25, 10, 4)])
def test_an_ipc_without_room_is_refused_with_the_smallest_that_has(
    teachers: int, classes: int, least: int
) -> None:
    with pytest.raises(UserError, match=f"pass --ipc {least} or more") as refused:
        naturals_within(least - 1, teachers, classes)
    assert "\n" not in str(refused.value)
    assert naturals_within(least, teachers, classes) == 1


def naive(naturals: Tensor, compensators: Tensor) -> Tensor:
    """Take the stages one after the other, and the naturals in each: [K(M + 1), C, H, W] of one class."""
    count, images = len(naturals), []
    for stage in range(len(compensators) // count + 1):
        for number in range(count):
            added = compensators[(stage - 1) * count + number] if stage else 0
            images.append(naturals[number] + added)
    return torch.stack(images)


def test_decoding_and_its_gradient_equal_a_plain_loop() -> None:
    naturals, compensators = noise(3, 2, 1, 4, 4).double(), noise(6, 1, 4, 4, seed=1).double()
    weights = noise(3, 8, 1, 4, 4, seed=2).double()
    results = []
    for decode in (compensated, lambda images, added: torch.stack([naive(each, added) for each in images])):
        leaves = naturals.clone().requires_grad_(), compensators.clone().requires_grad_()
        decoded = decode(*leaves)
        (decoded.square() * weights).sum().backward()
        results.append((decoded.detach(), *(leaf.grad for leaf in leaves)))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    assert results[0][0].shape == (3, 8, 1, 4, 4)


def learned(space: Space) -> SyntheticSet:
    """Return two naturals of each of two classes, and two teachers' compensators."""
    unit, added = 0.3 + 0.4 * noise(4, 1, 4, 4).sigmoid(), 0.2 * noise(4, 1, 4, 4, seed=1).tanh()
    images = unit if space == "unit" else PREPROCESS(unit)
    made = SyntheticSet(images, (2, 2), space, PREPROCESS)
    made.learn_compensators(2)
    assert made.compensators is not None
    assert made.compensators.shape == (4, 1, 4, 4)
    assert not made.compensators.any()
    scale = PREPROCESS(added) - PREPROCESS(torch.zeros_like(added))
    made.compensators.data.copy_(added if space == "unit" else scale)
    return made


@pytest.mark.parametrize("space", ["unit", "network"])
def test_the_file_decodes_into_what_networks_saw(space: Space) -> None:
    ours = learned(space)
    seen = ours.of(torch.tensor([0, 1]))
    torch.testing.assert_close(ours.of(torch.tensor([1])), seen[6:])
    assert ours.decoded_counts == (6, 6)
    assert ours.origins().tolist() == [0, 1] * 3 + [2, 3] * 3
    rows = torch.tensor([2, 5, 9, 10])
    torch.testing.assert_close(ours.compensated(rows), seen[rows])
    made = DistilledSet(
        ours.unit_images(), ours.labels, ("a", "b"), PREPROCESS, compensators=ours.unit_compensators()
    )
    dataset = DistilledDataset(made)
    torch.testing.assert_close(dataset.images, seen.detach(), atol=1e-5, rtol=1e-5)
    assert dataset.labels.tolist() == [0] * 6 + [1] * 6


def test_compensators_are_all_that_is_learned() -> None:
    ours = learned("network")
    ours.of(torch.tensor([0, 1])).square().sum().backward()
    assert ours.pixels == "compensators"
    assert [name for name, each in ours.named_parameters() if each.requires_grad] == ["compensators"]
    assert ours.images.grad is None
    assert not ours.has_bounds
    assert ours.compensators is not None
    assert ours.compensators.grad is not None
    assert (ours.compensators.grad != 0).all()


@pytest.mark.parametrize(
    ("counts", "preprocess", "form"),
    [
        ((1, 3), PREPROCESS, MultiFormation()),
        ((2, 2), PREPROCESS, MultiFormation(factor=2)),
        ((2, 2), ZCA(torch.zeros(16), torch.eye(16)), MultiFormation()),
    ],
)
def test_they_are_of_plain_standardised_images(counts: Any, preprocess: Any, form: MultiFormation) -> None:
    with pytest.raises(ValueError, match="plain, standardised images, equally many"):
        SyntheticSet(torch.zeros(4, 1, 4, 4), counts, "unit", preprocess, form).learn_compensators(2)


def test_a_set_clamps_sums_and_nothing_else() -> None:
    ours = with_compensators()
    assert ours.compensators is not None
    images, origins = ours.decode()
    for label in range(3):
        naturals, decoded = ours.images[4 * label : 4 * label + 4], images[12 * label : 12 * label + 12]
        expected = naive(naturals, ours.compensators)
        assert torch.equal(decoded[:4], naturals)
        assert torch.equal(decoded[4:], expected[4:].clamp(0, 1))
        assert not torch.equal(decoded[4:], expected[4:])
        assert origins[12 * label : 12 * label + 12].tolist() == [4 * label + k for k in range(4)] * 3
    assert (ours.images < 0).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"compensators": torch.zeros(8, 3, 8, 9)}, r"float32 \['n', 3, 8, 8\], got float32 \[8, 3, 8, 9\]"),
        ({"compensators": torch.zeros(8, 3, 8, 8).double()}, "got float64"),
        ({"compensators": torch.zeros(0, 3, 8, 8)}, r"got float32 \[0"),
        ({"compensators": torch.full((8, 3, 8, 8), torch.inf)}, "not finite"),
        ({"compensators": torch.zeros(6, 3, 8, 8)}, "there are 6, and 4 images of a class"),
        ({"labels": torch.tensor([0] * 2 + [1] * 4 + [2] * 6)}, "there are 8, and 2 or 4 or 6 images"),
        ({"multi_formation": MultiFormation(factor=2)}, "not both"),
    ],
)
def test_a_set_whose_compensators_do_not_fit_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(with_compensators(), **fields)


def test_what_a_set_says_of_itself() -> None:
    ours = with_compensators()
    assert repr(ours) == "<DistilledSet: dm, 12 images and 8 compensators of 3x8x8, 3 classes>"
    assert (ours.stored_count, ours.decoded_count, ours.is_plain) == (20, 36, False)
    dataset = DistilledDataset(ours)
    assert dataset.stored.tolist() == [7, 7, 6]
    assert dataset.ipc == 7
    assert len(dataset) == 36
    assert len(DistilledDataset(ours, decode=False)) == 12
    assert make().is_plain


def test_the_digest_is_of_compensators_too() -> None:
    ours = with_compensators()
    assert ours.compensators is not None
    other = dataclasses.replace(ours, compensators=ours.compensators.flip(0))
    assert len({ours.digest, other.digest, make().digest}) == 3
    viewed = dataclasses.replace(ours, views=views_of(ours))
    assert viewed.views is not None
    assert viewed.views.images == 36
    with pytest.raises(UserError, match="views are of the images of another set"):
        dataclasses.replace(viewed, compensators=other.compensators)


def test_labels_and_weights_of_decoded_images() -> None:
    soft, weights = noise(36, 3), torch.arange(1.0, 13.0)
    dataset = DistilledDataset(
        dataclasses.replace(with_compensators(), soft_labels=soft, sample_weights=weights), labels="soft"
    )
    assert torch.equal(dataset[20][1], soft[20])  # type: ignore[arg-type]
    assert dataset.sample_weights is not None
    assert dataset.sample_weights.tolist() == [
        weights[4 * label + k] for label in range(3) for k in [0, 1, 2, 3] * 3
    ]
