"""Committees of CV-DD: which teachers a batch has, and how much each says."""

from __future__ import annotations

import pytest

from dsdistill.config.recipe import load_recipe
from dsdistill.engines.committee import CommitteeConfig
from dsdistill.engines.decoupled import DecoupledEngine
from dsdistill.errors import UserError
from dsdistill.supply.base import NetworkRequest
from dsdistill.supply.teachers import Teachers, TeachersConfig
from tests.helpers.engines import CPU, toy
from tests.helpers.recovery import NETWORKS, teacher

IMAGENET = (56.4, 42.3, 52.5, 44.2, 40.6)
COMMITTEE = CommitteeConfig(size=2, priors=IMAGENET)


def test_weights_are_those_of_the_papers_example() -> None:
    (first, weight), (second, other) = COMMITTEE.members(5, 0, 10, seed=0)
    assert (first, second) == (0, 1)
    assert (weight, other) == (pytest.approx(0.944, abs=5e-4), pytest.approx(0.056, abs=5e-4))


def test_at_ten_images_each_pair_of_five_has_its_turn() -> None:
    pairs = [tuple(number for number, _ in COMMITTEE.members(5, index, 10, seed=0)) for index in range(10)]
    assert pairs == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]


def test_one_image_has_the_two_highest_and_many_have_random_pairs() -> None:
    assert [number for number, _ in COMMITTEE.members(5, 0, 1, seed=0)] == [0, 2]
    drawn = [tuple(number for number, _ in COMMITTEE.members(5, index, 50, seed=3)) for index in range(50)]
    assert 5 < len(set(drawn)) <= 10
    assert drawn == [tuple(n for n, _ in COMMITTEE.members(5, index, 50, seed=3)) for index in range(50)]
    other = [tuple(number for number, _ in COMMITTEE.members(5, index, 50, seed=4)) for index in range(50)]
    assert drawn != other


def test_without_priors_all_say_as_much() -> None:
    assert CommitteeConfig().members(4, 0, 10, seed=0) == [(number, 0.25) for number in range(4)]


@pytest.mark.parametrize("reverse", [False, True])
def test_priors_are_of_the_networks_in_the_order_of_their_names(
    monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    task, real = toy()
    members = [teacher(name) for name in (reversed(NETWORKS) if reverse else NETWORKS)]
    monkeypatch.setattr(TeachersConfig, "build", lambda *_: Teachers(members))
    request = NetworkRequest(",".join(NETWORKS), task, CPU, 0, real.fingerprint)
    engine = DecoupledEngine(committee=CommitteeConfig(priors=(60.0, 50.0)))
    if reverse:
        with pytest.raises(UserError, match="name their files in that order"):
            engine.build_networks(request)
    else:
        assert engine.build_networks(request).count == 2


@pytest.mark.parametrize(
    ("dataset", "ipc", "networks", "priors"),
    [
        ("imagenet", 10, 5, IMAGENET),
        ("cifar10", 1, 2, (67.6, 67.4)),
        ("cifar100", 10, 5, (64.0, 60.6, 51.6, 59.4, 56.4)),
        ("digits", 10, 2, ()),
    ],
)
def test_the_recipe_has_a_prior_for_each_network(
    dataset: str, ipc: int, networks: int, priors: tuple[float, ...]
) -> None:
    options = load_recipe("cv-dd").options(dataset, ipc)
    assert len(options["network"].split(",")) == networks
    assert tuple(options["engine"]["committee"].get("priors", ())) == priors
