"""Real images near the centres of clusters, against a naive loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from dsdistill.distillation.loop import Distiller
from dsdistill.engines import AttentionEngine, DistributionEngine
from dsdistill.engines.clusters import RealBatchesConfig
from dsdistill.supply import TrainedConfig
from dsdistill.supply.cost import Sizes
from tests.helpers import engines, gradients

COUNTS = (20, 15, 18)


def gradient(**told: Any) -> Distiller:
    """Match gradients, with networks of two updates each."""
    supply = TrainedConfig(on="real", samples=4, batch_size=4, updates_per_network=2, lr=0.5)
    config = RealBatchesConfig(kind="kmeans", **told)
    return gradients.loop("convnet2-w6", size=8, counts=COUNTS, supply=supply, real_batches=config)


def distribution(**told: Any) -> Distiller:
    task, real = engines.toy(size=8, counts=COUNTS)
    engine = DistributionEngine(batch_real=6, real_batches=RealBatchesConfig(kind="kmeans", **told))
    return engines.loop(task, real, "convnet2-w6", engine=engine)


def check(distiller: Distiller, label: int, members: Tensor, centres: int, each: int) -> list[int]:
    """Check that each image of a class is the nearest to its centre of all that are left; return them.

    The two images of a small cluster are equally near.
    """
    sources = distiller.sources
    positions = sources.positions(label, centres * each).tolist()
    chosen = [members.tolist().index(position) for position in positions]
    with torch.no_grad():
        rows = sources.supply.network.embed(sources.batches.images(members))
    found = KMeans(centres, n_init=1, random_state=0).fit(rows.numpy()).cluster_centers_
    left = set(range(len(members)))
    for turn, row in enumerate(chosen):
        distances = (rows - torch.from_numpy(found)[turn // each]).square().sum(1)
        assert row in left
        assert distances[row] <= (1 + 1e-9) * min(distances[other] for other in left)
        left.remove(row)
    assert sources.data.labels[members[chosen]].eq(label).all()
    return positions


@pytest.mark.parametrize("loop", [gradient, distribution])
@pytest.mark.parametrize("each", [1, 2, 3])
def test_they_are_the_nearest_to_each_centre(loop: Any, each: int) -> None:
    distiller = loop(sub_sample=each)
    sources = distiller.sources
    sources.drawn()
    for label in range(3):
        check(distiller, label, sources.data.indices_of(label), 6 // each, each)


def test_candidates_are_others_at_every_clustering() -> None:
    distiller = distribution(candidates=9)
    sources, seen = distiller.sources, set()
    for sources.iteration in range(6):
        sources.drawn()
        members = sources.batches.positions(0, 9, sources.iteration, "candidates")
        assert len(set(members.tolist())) == 9
        seen |= set(check(distiller, 0, members, 6, 1))
    assert len(seen) > 9


@pytest.mark.parametrize("loop", [gradient, distribution])
def test_loss_and_gradient_are_those_of_the_chosen_images(loop: Any) -> None:
    distiller = loop()
    helper = gradients if loop is gradient else engines
    expected, expected_gradient = helper.naive(distiller)
    loss, found = engines.loss_and_gradient(distiller)
    random = distiller.sources.batches.positions(0, 6, 0).sort().values
    assert not torch.equal(distiller.sources.positions(0, 6).sort().values, random)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(found, expected_gradient, rtol=1e-6, atol=1e-12)


def batches(distiller: Distiller, iterations: int) -> list[list[int]]:
    """Return the images of the first class in every iteration."""
    found = []
    for _ in range(iterations):
        distiller.step()
        found.append(distiller.sources.positions(0, 6).tolist())
    return found


def test_they_stay_until_the_class_is_clustered_again() -> None:
    by_network = batches(gradient(), 6)  # networks of two updates
    assert by_network[0] == by_network[1] != by_network[2] == by_network[3] != by_network[4]
    by_number = batches(gradient(every=3), 6)
    assert by_number[0] == by_number[1] == by_number[2] != by_number[3] == by_number[4] == by_number[5]
    one, two, three = batches(distribution(), 3)  # every network of its own
    assert one != two != three


def test_a_network_in_training_is_clustered_by_as_it_is() -> None:
    every = batches(gradient(every=1), 2)
    assert every[0] != every[1]


def test_a_state_has_the_choice() -> None:
    """A resumed loop has another network than the one that its images were chosen by."""
    whole, stopped, resumed = (gradient(every=4) for _ in range(3))
    expected = batches(whole, 6)
    batches(stopped, 2)
    resumed.load_state_dict({name: value.clone() for name, value in stopped.state_dict().items()})
    assert batches(resumed, 4) == expected[2:]
    assert torch.equal(resumed.synthetic.images, whole.synthetic.images)
    stopped.sources.clusters.load_state_dict({})
    assert batches(stopped, 1) != expected[2:3]


def test_a_class_as_small_as_its_centres_gives_all() -> None:
    task, real = engines.toy(size=8, counts=(20, 4, 18))
    config = RealBatchesConfig(kind="kmeans", sub_sample=2)
    engine = DistributionEngine(batch_real=6, real_batches=config)
    engine.check_data(real)
    sources = engines.loop(task, real, "convnet2-w6", engine=engine).sources
    sources.drawn()
    assert sorted(sources.positions(1, 6).tolist()) == sources.data.indices_of(1).tolist()
    means = sources.real_means(6, sources.siamese())
    assert means.shape[0] == 3


def test_an_iteration_costs_its_share_of_a_clustering() -> None:
    sizes = Sizes(counts=torch.tensor([100, 50]), decoded=torch.tensor([2, 2]))
    random = AttentionEngine().cost(sizes)
    assert random.clustered == 0
    for config, passes, clustered in (
        (RealBatchesConfig(kind="kmeans"), 150, 100),
        (RealBatchesConfig(kind="kmeans", every=10), 15, 100),
        (RealBatchesConfig(kind="kmeans", every=10, candidates=60), 11, 60),
    ):
        cost = AttentionEngine(real_batches=config).cost(sizes)
        assert (cost.passes - random.passes, cost.clustered) == (passes, clustered)
