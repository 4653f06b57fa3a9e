"""Images whose features are the atoms of a barycentre (WMDD), in float64 against plain loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dsdistill.engines.decoupled import AlignmentConfig, DecoupledEngine
from dsdistill.engines.targets import Barycentre
from dsdistill.objectives.barycentre import free_support, weighted_barycentre
from dsdistill.seeding import generator
from tests.helpers.recovery import NETWORKS, recovery


def engine(target: Barycentre, weight: float = 0.0) -> DecoupledEngine:
    return DecoupledEngine(batches="per-class", target=target, alignment=AlignmentConfig(weight=weight))


def start(label: int, count: int, dim: int) -> torch.Tensor:
    return torch.randn(count, dim, generator=generator(0, "barycentre", label), dtype=torch.float64)


def test_the_loss_is_the_norm_over_each_class_of_features_less_atoms() -> None:
    target = Barycentre(classification=0.25)
    synthetic, sources = recovery(engine(target), NETWORKS)
    images = synthetic.images.detach().clone().requires_grad_()
    expected = torch.zeros((), dtype=torch.float64)
    for member in sources.supply.members:
        for label, part in enumerate(images.split(2)):
            real = sources.batches.images(sources.data.indices_of(label))
            features = member.network.embed(real).detach()
            atoms = free_support(features, start(label, 2, features.shape[1]))
            embedded = member.network.embed(part)
            logits = member.network.classifier(embedded)
            named = F.cross_entropy(logits, torch.full((2,), label))
            expected = expected + 0.5 * ((embedded - atoms).norm() + 0.25 * named)  # a committee of two
    terms = engine(target).loss(synthetic, sources)
    assert terms.keys() == {"features"}
    assert terms["features"].item() == pytest.approx(expected.item(), rel=1e-12)
    terms["features"].backward()
    assert synthetic.images.grad is not None
    torch.testing.assert_close(
        synthetic.images.grad, torch.autograd.grad(expected, images)[0], rtol=0, atol=1e-9
    )


def test_equal_weights_are_not_stored_and_learned_ones_are() -> None:
    assert recovery(engine(Barycentre()))[0].sample_weights is None
    synthetic, sources = recovery(engine(Barycentre(weights=True)), ipc=3)
    found = synthetic.sample_weights
    assert found is not None
    network = sources.supply.members[0].network
    for label, weights in enumerate(found.split(3)):
        features = network.embed(sources.batches.images(sources.data.indices_of(label)))
        expected = 3 * weighted_barycentre(features, start(label, 3, features.shape[1]))[1]
        torch.testing.assert_close(weights, expected)
        assert weights.mean().item() == pytest.approx(1)
    assert "sample_weights" not in synthetic.state_dict()  # they are made anew when a run goes on


def test_images_at_their_atoms_have_no_loss_and_no_gradient() -> None:
    synthetic, sources = recovery(engine(Barycentre()))
    network = sources.supply.members[0].network
    for label in range(3):
        synthetic.constants.get_buffer("atoms_0")[2 * label : 2 * label + 2] = network.embed(
            synthetic.images[2 * label : 2 * label + 2].detach()
        )
    term = engine(Barycentre()).loss(synthetic, sources)["features"]
    term.backward()
    assert term.item() < 1e-9
    assert synthetic.images.grad is not None
    assert synthetic.images.grad.isfinite().all()
