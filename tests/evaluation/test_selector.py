"""Selector: which images it chooses, and the networks it trains for that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError
from dsdistill.evaluation import selector as module
from dsdistill.evaluation.execution import Execution
from dsdistill.evaluation.selector import Selector, SelectorTraining
from dsdistill.networks import Network
from tests.helpers.evaluation import CLASSES, NETWORK, PREPROCESS, real

BRIEF = SelectorTraining(epochs=2, least_steps=12, batch_size=16, lr=0.05, networks=2)


def selector(data: RealDataset, seed: int = 0, training: SelectorTraining = BRIEF) -> Selector:
    return Selector(NETWORK, data, PREPROCESS, Execution(), seed, training)


def test_choices_are_class_major_deterministic_and_independent_of_each_other() -> None:
    data, counts = real(20), torch.tensor([1, 0, 3])
    requests = {f"{method}!": (method, counts) for method in ("herding", "k-center", "k-means", "el2n")}
    ticks: list[tuple[int, int]] = []
    chosen = selector(data).choose(requests, lambda done, total: ticks.append((done, total)))
    assert list(chosen) == list(requests)
    for positions in chosen.values():
        assert data.labels[positions].tolist() == [0, 2, 2, 2]
        assert len(set(positions.tolist())) == 4
    # 60 images: 3 epochs of 4 batches, then each class in 2, for each of two networks
    assert ticks == [(done, 2 * (3 * 4 + 3 * 2)) for done in range(1, 37)]

    alone = selector(data).choose({"k-center": ("k-center", counts)}, lambda done, total: None)
    assert torch.equal(alone["k-center"], chosen["k-center!"])
    other = selector(data, seed=1).choose(requests, lambda done, total: None)
    assert any(not torch.equal(other[key], chosen[key]) for key in requests)


def test_features_are_what_the_trained_network_embeds() -> None:
    """In them the classes lie farther apart than the images of one class."""
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


@pytest.mark.slow
def test_el2n_finds_wrong_labels_and_its_easy_end_avoids_them() -> None:
    clean = real(30)
    wrong = torch.tensor([0, 1, 30, 31, 60, 61])
    labels = clean.labels.clone()
    labels[wrong] = (labels[wrong] + 1) % CLASSES
    data = RealDataset("stripes", "train", clean.images, labels, clean.classes)
    counts = torch.full((CLASSES,), 2)
    training = SelectorTraining(least_steps=60, batch_size=16, lr=0.05, networks=2)
    requests = {"el2n": ("el2n", counts), "el2n-easy": ("el2n-easy", counts)}
    chosen = selector(data, training=training).choose(requests, lambda done, total: None)
    assert sorted(chosen["el2n"].tolist()) == wrong.tolist()
    assert not set(chosen["el2n-easy"].tolist()) & set(wrong.tolist())


@pytest.mark.slow
def test_a_long_choice_is_announced_and_a_diverged_one_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    requests = {"herding": ("herding", torch.ones(CLASSES, dtype=torch.int64))}
    data = real(30)
    slow = Selector(NETWORK, data, PREPROCESS, Execution(notify=notices.append), 0, BRIEF)
    slow.choose(requests, lambda done, total: None)
    assert notices == []
    monkeypatch.setattr(module, "_NOTICE_SECONDS", 0.0)
    slow.choose(requests, lambda done, total: None)
    assert len(notices) == 1
    assert "takes up to 1 min" in notices[0]
    with pytest.raises(UserError, match="diverged"):
        selector(data, training=SelectorTraining(lr=1e30)).choose(requests, lambda done, total: None)


def test_a_network_that_took_long_is_trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.0)
    data, requests = real(20), {"herding": ("herding", torch.tensor([2, 1, 3]))}
    trained: list[int] = []
    train = Selector._trained

    def counted(self: Selector, index: int, advance: Callable[[], None]) -> Network:
        trained.append(index)
        return train(self, index, advance)

    monkeypatch.setattr(Selector, "_trained", counted)

    def chosen(**changes: Any) -> tuple[list[int], list[tuple[int, int]]]:
        ticks: list[tuple[int, int]] = []
        asked = dataclasses.replace(selector(data), **changes)
        found = asked.choose(requests, lambda done, total: ticks.append((done, total)))
        return found["herding"].tolist(), ticks

    first, again = chosen(), chosen()
    assert first == again
    assert trained == [0]
    others: list[dict[str, Any]] = [
        {"seed": 1},
        {"real": real(21)},
        {"training": dataclasses.replace(BRIEF, epochs=4)},
        {"preprocess": Standardise.of((0.4,), (0.5,))},
        {"network": "mlp"},
    ]
    for count, change in enumerate(others, 2):
        chosen(**change)
        assert trained == [0] * count


def test_a_damaged_or_unwritable_cache_costs_a_training_and_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.0)
    notices: list[str] = []
    asked = dataclasses.replace(selector(real(20)), execution=Execution(notify=notices.append))
    path = asked._kept_at(0)
    network = asked._network(0, lambda: None)
    path.write_bytes(path.read_bytes()[:-1])
    again = asked._network(0, lambda: None)
    assert len(notices) == 1
    for one, other in zip(network.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    (tmp_path / "file").touch()
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "file"))
    assert not asked._network(0, lambda: None).training
    assert "not kept for later" in notices[-1]
