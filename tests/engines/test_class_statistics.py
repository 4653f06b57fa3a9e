"""Statistics of each class: against those of all its images in one batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dsdistill.distillation import config as configs
from dsdistill.engines.class_statistics import statistics_of
from dsdistill.engines.decoupled import AlignmentConfig, DecoupledEngine
from dsdistill.errors import UserError
from tests.helpers.recovery import NETWORKS, recovery

ENGINE = DecoupledEngine(
    batches="per-class", alignment=AlignmentConfig(statistics="class", weight=0.5, first=3.0)
)


def inputs(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Return the input of every batch normalisation of a network."""
    heard: list[torch.Tensor] = []
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    handles = [each.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0])) for each in norms]
    network(images)
    for handle in handles:
        handle.remove()
    return heard


def test_statistics_of_a_class_are_those_of_all_its_images_in_one_batch() -> None:
    synthetic, sources = recovery(ENGINE, NETWORKS)
    for number, member in enumerate(sources.supply.members):
        layers = sources.supply.recovering[number].layers
        found = statistics_of(synthetic.constants, number, layers, torch.arange(3))
        for label in range(3):
            images = sources.batches.images(sources.data.indices_of(label))
            for (means, variances), maps in zip(found, inputs(member.network, images), strict=True):
                torch.testing.assert_close(means[label], maps.mean((0, 2, 3)), rtol=0, atol=1e-12)
                expected = maps.var((0, 2, 3), correction=0)
                torch.testing.assert_close(variances[label], expected, rtol=0, atol=1e-12)


def test_each_batch_is_aligned_with_its_own_class() -> None:
    synthetic, sources = recovery(ENGINE)
    network, expected = sources.supply.members[0].network, 0.0
    for label, images in enumerate(synthetic.images.detach().split(2)):
        real = inputs(network, sources.batches.images(sources.data.indices_of(label)))
        for layer, (maps, goal) in enumerate(zip(inputs(network, images), real, strict=True)):
            apart = maps.mean((0, 2, 3)) - goal.mean((0, 2, 3))
            spread = maps.var((0, 2, 3), correction=0) - goal.var((0, 2, 3), correction=0)
            expected += 0.5 * (1.0 if layer else 3.0) * float(apart.norm() + spread.norm())
    terms = ENGINE.loss(synthetic, sources)
    assert terms["alignment"].item() == pytest.approx(expected, rel=1e-12)


def test_the_set_of_a_network_that_has_seen_it_all_is_its_own() -> None:
    """Real images of a class as the set: nothing is left to align."""
    synthetic, sources = recovery(ENGINE, ipc=5)
    positions = torch.cat([sources.data.indices_of(label)[:5] for label in (1,)])
    synthetic.images.data[5:10] = sources.batches.images(positions)  # class 1 has five images
    network = sources.supply.recovering[0]
    goal = statistics_of(synthetic.constants, 0, network.layers, torch.tensor([1]))
    assert network(synthetic.images[5:10], 1, goal).alignment.max() < 1e-12


def test_class_statistics_need_batches_of_one_class() -> None:
    with pytest.raises(UserError, match=r"set engine\.batches=per-class"):
        configs.resolve(
            {"method": "sre2l", "ipc": 1, "data": {"name": "digits"}}, ["engine.alignment.statistics=class"]
        )
