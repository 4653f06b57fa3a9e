"""Choosing real images: each method against its definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from dsdistill.data import selection
from dsdistill.data.real import RealDataset
from dsdistill.data.selection import el2n, herding, highest, k_center, k_means, lowest, validation_split
from dsdistill.errors import UserError
from dsdistill.seeding import generator
from tests.helpers.evaluation import CLASSES


def features(count: int, dimension: int = 5, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimension, generator=draw, dtype=torch.float64) + 3


# Held out ---------------------------------------------------------------------------------------------------


def of_classes(*counts: int) -> RealDataset:
    """Return images whose classes take turns until they are used up."""
    labels = [label for turn in range(max(counts)) for label, count in enumerate(counts) if turn < count]
    names = tuple(f"class {label}" for label in range(len(counts)))
    images = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    return RealDataset("pets", "train", images, torch.tensor(labels), names)


def test_a_tenth_of_each_class_is_held_out_but_never_all_of_one() -> None:
    real = of_classes(40, 26, 4, 2, 1, 0)
    kept, held_out = validation_split(real)
    assert torch.bincount(real.labels[held_out], minlength=6).tolist() == [4, 3, 1, 1, 0, 0]
    assert torch.bincount(real.labels[kept], minlength=6).tolist() == [36, 23, 3, 1, 1, 0]
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(len(real)))
    assert [rows.tolist() for rows in (kept, held_out)] == [
        sorted(rows.tolist()) for rows in (kept, held_out)
    ]


def test_which_images_are_held_out_stays_the_same() -> None:
    """Files of experts do not say it: another draw would test on images that were trained on."""
    assert validation_split(of_classes(20, 10))[1].tolist() == [4, 15, 29]


def test_none_can_be_held_out_of_one_image_a_class() -> None:
    with pytest.raises(UserError, match="no class of pets has two training images"):
        validation_split(of_classes(1, 1))


# By features ------------------------------------------------------------------------------------------------


def test_k_means_takes_several_images_at_each_centre() -> None:
    """Images that are taken go to no other centre; the last one has what is left."""
    points = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0]], dtype=torch.float64)

    def fit(_: np.ndarray, count: int) -> np.ndarray:
        return np.array([[1.9], [0.2], [12.0]])[:count]

    assert k_means(points, 2, fit).tolist() == [2, 0]
    assert k_means(points, 2, fit, nearest=2).tolist() == [2, 1, 0, 3]
    assert k_means(points, 3, fit, nearest=2).tolist() == [2, 1, 0, 3, 4]


def naive_herding(points: np.ndarray, count: int) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < count:
        free = [i for i in range(len(points)) if i not in chosen]
        off = [np.linalg.norm(points[[*chosen, i]].mean(0) - points.mean(0)) for i in free]
        chosen.append(free[int(np.argmin(off))])
    return chosen


def naive_k_center(points: np.ndarray, count: int) -> list[int]:
    chosen = [int(np.argmin([np.linalg.norm(point - points.mean(0)) for point in points]))]
    while len(chosen) < count:
        free = [i for i in range(len(points)) if i not in chosen]
        gaps = [min(np.linalg.norm(points[i] - points[j]) for j in chosen) for i in free]
        chosen.append(free[int(np.argmax(gaps))])
    return chosen


def naive_k_means(points: np.ndarray, count: int) -> set[int]:
    """Try every way to part the points."""

    def spread(parts: tuple[int, ...]) -> float:
        return sum(
            np.square(group - group.mean(0)).sum()
            for part in range(count)
            if len(group := points[np.array(parts) == part])
        )

    best = np.array(min(product(range(count), repeat=len(points)), key=spread))
    centres = [points[best == part].mean(0) for part in range(count)]
    return {int(np.argmin(np.linalg.norm(points - centre, axis=1))) for centre in centres}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_herding_and_k_center_are_their_definitions(seed: int) -> None:
    seen = features(25, seed=seed)
    for count in (1, 2, 7, 25):
        assert herding(seen, count).tolist() == naive_herding(seen.numpy(), count)
        assert k_center(seen, count).tolist() == naive_k_center(seen.numpy(), count)


def test_k_means_takes_the_images_nearest_to_the_best_centres() -> None:
    centres = torch.tensor([[0.0, 0], [9, 0], [0, 9]], dtype=torch.float64)
    seen = centres[[0, 0, 1, 1, 1, 2, 2]] + 0.3 * features(7, dimension=2)
    assert set(k_means(seen, 3).tolist()) == naive_k_means(seen.numpy(), 3)
    assert k_means(seen, 1).tolist() == [naive_k_means(seen.numpy(), 1).pop()]


@pytest.mark.parametrize("choose", [herding, k_center, k_means])
def test_no_image_is_chosen_twice_where_images_coincide(choose: Callable[[Tensor, int], Tensor]) -> None:
    seen = torch.tensor([[0.0], [0], [0], [0], [1]])
    assert len(set(choose(seen, 4).tolist())) == 4
    assert sorted(choose(seen, 5).tolist()) == [0, 1, 2, 3, 4]
    assert choose(seen, 3).dtype == torch.int64


# By scores --------------------------------------------------------------------------------------------------


def test_el2n_is_its_formula() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 6, CLASSES, generator=draw, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    expected = []
    for image, label in enumerate(labels.tolist()):
        norms = []
        for network in logits[:, image].tolist():
            total = sum(math.exp(value) for value in network)
            errors = [math.exp(value) / total - (k == label) for k, value in enumerate(network)]
            norms.append(math.sqrt(sum(error**2 for error in errors)))
        expected.append(sum(norms) / len(norms))
    assert el2n(logits, labels).tolist() == pytest.approx(expected)
    sure_and_wrong = torch.tensor([[[50.0, 0.0]]])
    assert el2n(sure_and_wrong, torch.tensor([1])).item() == pytest.approx(math.sqrt(2))


def test_the_ends_of_scores() -> None:
    scores = torch.tensor([0.2, 0.9, 0.9, 0.1])
    assert highest(scores, 3).tolist() == [1, 2, 0]
    assert lowest(scores, 2).tolist() == [3, 0]


def test_too_many_images_are_clustered_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.arange(10, 30)
    stream = generator(0, "test")
    assert selection.few_enough(rows, 12, stream) is rows
    monkeypatch.setattr(selection, "_CLUSTERED_BYTES", 4 * 12 * 7)
    part = selection.few_enough(rows, 12, stream)
    assert len(part) == 7
    assert part.tolist() == sorted(set(part.tolist()) & set(rows.tolist()))
    assert not torch.equal(part, rows[:7])
