"""The queue of networks in training, and improved distribution matching with it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from dsdistill.distillation.loop import Distiller
from dsdistill.engines import DistributionEngine
from dsdistill.networks import build_network
from dsdistill.seeding import forked, generator
from dsdistill.supply.queue import Queue, QueueConfig
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation
from tests.helpers.engines import CPU, decoded, drawn, iterations, loop, toy, whole_and_resumed
from tests.helpers.marks import slow_but_first
from tests.reference.idm import improved_matching_losses

NO_BATCHES: Any = None
"""Networks of a queue are trained after they are drawn."""
TOLD = QueueConfig(size=4, start=2, push_every=2, networks=2, steps=3, batch_size=8, forget_every=4)


def distiller(network: str = "convnet2-w6", multi_formation: MultiFormation = IDENTITY) -> Distiller:
    engine = DistributionEngine(batch_real=6, supply=TOLD, classification=0.5)
    return loop(*toy(), network, engine=engine, multi_formation=multi_formation)


def queue(loop: Distiller) -> Queue:
    assert isinstance(loop.sources.supply, Queue)
    return loop.sources.supply


@pytest.mark.parametrize("network", ["convnet2-w6", "convnet2-w6-batch"])
@pytest.mark.parametrize("factor", slow_but_first([1, 2]))
def test_loss_equals_two_forwards_per_class(network: str, factor: int) -> None:
    ours = distiller(network, MultiFormation(factor=factor))
    ours.step(), ours.step()  # some networks have been trained by now
    for iteration in range(2, 12):
        ours.sources.iteration = iteration
        real, augment = drawn(ours)
        if not queue(ours).accuracy:
            continue
        network_copy, weight = copy.deepcopy(queue(ours).network).eval(), 0.5 * float(queue(ours).accuracy)
        images = ours.synthetic.images.detach().clone().requires_grad_()
        losses = improved_matching_losses(network_copy, real, decoded(ours, images), augment, weight)
        (slope,) = torch.autograd.grad(torch.stack(losses).sum(), images)
        expected = float(torch.stack(losses).sum().detach())
        ours.synthetic.images.grad = None
        terms = ours.engine.loss(ours.synthetic, ours.sources)
        torch.stack(list(terms.values())).sum().backward()
        assert float(torch.stack(list(terms.values())).sum().detach()) == pytest.approx(expected, rel=1e-9)
        torch.testing.assert_close(ours.synthetic.images.grad, slope, rtol=1e-9, atol=1e-12)
        return
    raise AssertionError("no trained network was picked")


def test_networks_come_and_go_by_age() -> None:
    ours = queue(distiller())

    def fresh(serial: int) -> torch.Tensor:
        with forked(0, "networks", serial):
            return build_network("convnet2-w6", 1, 12, 3).double().state_dict()["classifier.weight"]

    def held() -> list[torch.Tensor]:
        return [member.state["classifier.weight"] for member in ours.members]

    places = set()
    for iteration, first, last in ((0, 0, 2), (1, 0, 2), (2, 0, 3), (3, 0, 3), (4, 1, 4), (5, 1, 4)):
        ours.draw(iteration, NO_BATCHES)
        torch.testing.assert_close(held(), [fresh(serial) for serial in range(first, last + 1)])
        place = int(torch.randint(len(held()), (), generator=generator(0, "queue", iteration)))
        torch.testing.assert_close(ours.network.state_dict()["classifier.weight"], fresh(first + place))
        ours.members[place].correct, ours.members[place].seen = torch.tensor(iteration + 1), 100
        assert float(ours.accuracy) == pytest.approx(
            iteration + 1
        )  # that of the network it has the weights of
        places.add(place)
    assert len(places) > 2


def test_a_few_are_trained_by_sgd_and_graded() -> None:
    ours = distiller()
    sources, members = ours.sources, queue(ours)
    data, preprocess = sources.data, sources.task.preprocess.to(CPU, torch.float64)
    sources.classifier()
    sources.iteration = 1
    sources.classifier()
    before = [{name: value.clone() for name, value in each.state.items()} for each in members.members]
    sources.advance(ours.synthetic)
    chosen = torch.randperm(3, generator=generator(0, "queue-training", 1))[:2].tolist()
    for turn, position in enumerate(chosen):
        network = build_network("convnet2-w6", 1, 12, 3).double()
        network.load_state_dict(before[position])
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        right = 0
        for batch in range(3):
            rows = torch.randperm(21, generator=generator(0, "queue-batches", 1, turn, batch))[:8]
            labels = data.labels[rows]
            logits = network(preprocess(data.unit(rows).double()))
            right += int((logits.argmax(1) == labels).sum())
            optimiser.zero_grad()
            F.cross_entropy(logits, labels).backward()
            optimiser.step()
        member = members.members[position]
        torch.testing.assert_close(member.state, dict(network.state_dict()))
        assert (int(member.correct), member.seen) == (right, 24)
        members.position = position
        assert float(members.accuracy) == pytest.approx(100 * right / 24)  # in percent
    (left,) = {0, 1, 2} - set(chosen)
    assert members.members[left].seen == 0
    assert all(torch.equal(value, before[left][name]) for name, value in members.members[left].state.items())
    assert not any(parameter.requires_grad for parameter in members.network.parameters())


def test_accuracies_are_forgotten() -> None:
    ours = distiller()
    for report in iterations(ours):
        if report.iteration == 3:
            break
    assert any(member.seen for member in queue(ours).members)
    queue(ours).draw(4, NO_BATCHES)
    assert not any(member.seen for member in queue(ours).members)
    assert float(queue(ours).accuracy) == 0


@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_queue_continues_bit_identically(stop: int) -> None:
    whole, second = whole_and_resumed(distiller, stop)
    assert torch.equal(second.synthetic.images, whole.synthetic.images)
    for ours, theirs in zip(queue(second).members, queue(whole).members, strict=True):
        assert ours.seen == theirs.seen
        assert all(torch.equal(value, theirs.momentum[name]) for name, value in ours.momentum.items())
