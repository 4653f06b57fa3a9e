"""Selector: which images it chooses, and the networks it trains for that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from dsdistill.data.cache import store
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError
from dsdistill.evaluation import selector as module
from dsdistill.evaluation.execution import Execution
from dsdistill.evaluation.selector import Selector, SelectorTraining
from dsdistill.networks import Network, add_network
from dsdistill.networks.registry import NETWORKS
from tests.helpers.evaluation import CLASSES, NETWORK, PREPROCESS, real

BRIEF = SelectorTraining(epochs=2, least_steps=12, batch_size=16, lr=0.05, networks=2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))


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


def _ignored(*counts: int) -> None: ...


def network_of(asked: Selector) -> Network:
    """Return the first network that a choice takes: that of the cache, or a new one."""
    return asked._recalled(0) or asked._new(0, _ignored)


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
    assert first[0] == again[0]
    assert trained == [0]
    assert again[1][0][0] > 1  # the steps of its training are done at once
    assert again[1][-1] == first[1][-1]
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
    path = asked._cache_file(0)
    network = network_of(asked)
    path.write_bytes(path.read_bytes()[:-1])
    again = network_of(asked)
    assert len(notices) == 1
    for one, other in zip(network.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    (tmp_path / "file").touch()
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "file"))
    assert not network_of(asked).training
    assert "not kept for later" in notices[-1]


def test_a_quick_network_is_not_kept() -> None:
    asked = selector(real(20))
    network_of(asked)
    assert not asked._cache_file(0).exists()


def test_precision_is_a_part_of_what_is_kept() -> None:
    asked = selector(real(20))
    other = dataclasses.replace(asked, execution=Execution(precision="bf16"))
    assert asked._cache_file(0) != other._cache_file(0)


class Tied(nn.Module):
    """A network that uses one layer twice."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.first = self.second = nn.Linear(channels * size * size, channels * size * size)
        self.classifier = nn.Linear(channels * size * size, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.second(self.first(images.flatten(1)).relu()))
        return logits


def test_weights_that_are_tied_are_kept_and_others_of_that_name_are_trained_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.0)
    notices: list[str] = []
    execution = Execution(notify=notices.append)
    with NETWORKS.restored():
        asked = dataclasses.replace(selector(real(20)), network=add_network(Tied), execution=execution)
        network = network_of(asked)
        again = network_of(asked)
        assert not notices
        for one, other in zip(network.state_dict().values(), again.state_dict().values(), strict=True):
            assert torch.equal(one, other)
        store(asked._cache_file(0), save({"first.weight": torch.zeros(2)}))
        network_of(asked)
        assert notices == [
            f"{asked.network} is not as the cache has it, so it is trained again to choose images"
        ]


def test_what_is_left_of_a_choice_is_announced_where_a_network_is_in_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.0)
    monkeypatch.setattr(module, "_NOTICE_SECONDS", 0.0)
    notices: list[str] = []
    asked = dataclasses.replace(selector(real(20)), execution=Execution(notify=notices.append))
    counts = torch.tensor([2, 1, 3])
    every = asked.steps_left(["el2n"])
    assert every == asked.steps(["el2n"])
    asked.choose({"herding": ("herding", counts)}, _ignored)
    assert asked.steps_left(["el2n"]) == every - asked._training_steps
    assert asked.steps(["el2n"]) == every
    notices.clear()
    asked.choose({"el2n": ("el2n", counts)}, _ignored)
    assert len(notices) == 1
