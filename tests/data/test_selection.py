"""Choosing real images: each method against its definition, and the networks that choose."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from dsdistill.data.real import RealDataset
from dsdistill.data.selection import el2n, herding, highest, k_center, k_means, lowest
from dsdistill.errors import UserError
from dsdistill.evaluation import selector as selecting
from dsdistill.evaluation.ensembles import Execution
from dsdistill.evaluation.selector import Selector, SelectorTraining
from tests.helpers.evaluation import CLASSES, NETWORK, PREPROCESS, real


def features(count: int, dimension: int = 5, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimension, generator=draw, dtype=torch.float64) + 3


# By features ------------------------------------------------------------------------------------------------


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


# Networks that choose ---------------------------------------------------------------------------------------

BRIEF = SelectorTraining(epochs=2, least_steps=12, batch_size=16, lr=0.05, networks=2)


def selector(data: RealDataset, seed: int = 0, training: SelectorTraining = BRIEF) -> Selector:
    return Selector(NETWORK, data, PREPROCESS, Execution(), seed, training)


def test_choices_are_class_major_and_do_not_depend_on_each_other_or_on_the_day() -> None:
    data, counts = real(20), torch.tensor([1, 0, 3])
    asked = {f"{method}!": (method, counts) for method in ("herding", "k-center", "k-means", "el2n")}
    seen: list[tuple[int, int]] = []
    chosen = selector(data).choose(asked, lambda done, total: seen.append((done, total)))
    assert list(chosen) == list(asked)
    for positions in chosen.values():
        assert data.labels[positions].tolist() == [0, 2, 2, 2]
        assert len(set(positions.tolist())) == 4
    # 60 images: 3 epochs of 4 batches, then each class in 2, for each of two networks
    assert seen == [(done, 2 * (3 * 4 + 3 * 2)) for done in range(1, 37)]

    alone = selector(data).choose({"k-center": ("k-center", counts)}, lambda done, total: None)
    assert torch.equal(alone["k-center"], chosen["k-center!"])
    other = selector(data, seed=1).choose(asked, lambda done, total: None)
    assert any(not torch.equal(other[key], chosen[key]) for key in asked)


def test_features_are_what_the_trained_network_embeds() -> None:
    """After training, the classes lie farther apart in them than the images of a class do."""
    data = real(30)
    training = SelectorTraining(least_steps=60, batch_size=16, lr=0.05)
    chosen = selector(data, training=training)
    network = chosen._trained(0, lambda: None)
    assert not network.training
    seen = chosen._embeddings(network, torch.arange(90), lambda: None)
    expected = network.embed(PREPROCESS(data.unit(slice(None)))).detach()
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-5)
    means = seen.unflatten(0, (CLASSES, 30)).mean(1)
    within = seen.unflatten(0, (CLASSES, 30)).sub(means[:, None]).norm(dim=-1).mean()
    assert torch.pdist(means).min() > within


def test_el2n_finds_wrong_labels_and_its_easy_end_avoids_them() -> None:
    clean = real(30)
    wrong = torch.tensor([0, 1, 30, 31, 60, 61])
    labels = clean.labels.clone()
    labels[wrong] = (labels[wrong] + 1) % CLASSES
    data = RealDataset("stripes", "train", clean.images, labels, clean.classes)
    counts = torch.full((CLASSES,), 2)
    training = SelectorTraining(least_steps=60, batch_size=16, lr=0.05, networks=2)
    asked = {"el2n": ("el2n", counts), "el2n-easy": ("el2n-easy", counts)}
    chosen = selector(data, training=training).choose(asked, lambda done, total: None)
    assert sorted(chosen["el2n"].tolist()) == wrong.tolist()
    assert not set(chosen["el2n-easy"].tolist()) & set(wrong.tolist())


def test_a_long_choice_says_how_long_and_a_diverged_one_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    asked = {"herding": ("herding", torch.ones(CLASSES, dtype=torch.int64))}
    data = real(30)
    told = Selector(NETWORK, data, PREPROCESS, Execution(notify=said.append), 0, BRIEF)
    told.choose(asked, lambda done, total: None)
    assert said == []
    monkeypatch.setattr(selecting, "_LONG", 0.0)
    told.choose(asked, lambda done, total: None)
    assert len(said) == 1
    assert "takes up to 1 min" in said[0]
    with pytest.raises(UserError, match="diverged"):
        selector(data, training=SelectorTraining(lr=1e30)).choose(asked, lambda done, total: None)
