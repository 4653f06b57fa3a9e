"""How a pre-trained student learns other data: which labels it sees, and in which steps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from dsdistill.compute.probe import linear_probe
from dsdistill.config.transfer import TransferConfig
from dsdistill.evaluation import accuracy
from dsdistill.evaluation.execution import CPU, Execution
from dsdistill.evaluation.tuning import DownstreamData, Tuning
from dsdistill.networks import build_network
from dsdistill.seeding import generator
from tests.helpers.evaluation import fresh, real_data


def target(fraction: float = 1.0) -> DownstreamData:
    data = real_data()
    return DownstreamData(data, accuracy.TestImages(data.test, data.task.preprocess, CPU), fraction)


def tuning(**options: object) -> Tuning:
    return Tuning(TransferConfig(**{"augmentation": "none", **options}), Execution(), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("fraction", "per_class"), [(1.0, 30), (0.1, 3), (0.001, 1)])
def test_labels_are_a_share_of_each_class_and_one_at_least(fraction: float, per_class: int) -> None:
    part = target(fraction)
    rows = part.rows(seed=0, repeat=0)
    assert part.data.train.labels[rows].bincount().tolist() == [per_class] * 3
    assert len(rows.unique()) == len(rows)
    if fraction < 1:
        assert not torch.equal(part.rows(0, 1), rows)
    assert torch.equal(part.rows(0, 0), rows)


def test_fine_tuning_is_sgd_along_half_a_cosine() -> None:
    part, config = target(0.5), tuning(steps=7, batch_size=16, lr=0.1, momentum=0.9, weight_decay=0.01)
    ours, naive = fresh(0), fresh(0)
    config.teach(ours, part, 1, lambda done, total: None)
    images = part.data.task.preprocess(part.data.train.unit(slice(None)))
    rows, momentum = part.rows(0, 1), {name: 0.0 for name, _ in naive.named_parameters()}
    batches = [
        rows[batch]
        for epoch in range(4)
        for batch in torch.randperm(45, generator=generator(0, "transfer", 1, epoch))[:32].split(16)
    ][:7]
    for step, batch in enumerate(batches):
        loss = F.cross_entropy(naive(images[batch]), part.data.train.labels[batch])
        gradients = torch.autograd.grad(loss, list(naive.parameters()))
        with torch.no_grad():
            for (name, value), gradient in zip(naive.named_parameters(), gradients, strict=True):
                momentum[name] = 0.9 * momentum[name] + gradient + 0.01 * value
                value -= 0.1 * (1 + math.cos(math.pi * step / 7)) / 2 * momentum[name]
    for mine, expected in zip(ours.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)
    assert not ours.training


def test_a_probe_changes_no_weight_and_classifies_by_the_features() -> None:
    part, network = target(), build_network("convnet2-w8-batch", 1, 8, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    share = tuning(tuning="probe").accuracy(network, part, 0, lambda done, total: None)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    train, test = (
        network.embed(part.data.task.preprocess(each.unit(slice(None)))).detach()
        for each in (part.data.train, part.data.test)
    )
    weight, bias = linear_probe(train, part.data.train.labels, 3)
    expected = ((test @ weight.T + bias).argmax(1) == part.data.test.labels).float().mean()
    assert share == pytest.approx(float(expected), abs=0.02)
    assert share > 0.5


def test_images_are_mirrored_only_where_that_keeps_the_label() -> None:
    mirrored = DownstreamData(real_data(mirror=True), target().test, 1.0)
    config = tuning(steps=3, augmentation="flip")
    states = []
    for each in (target(), mirrored):
        network = fresh(0)
        config.teach(network, each, 0, lambda done, total: None)
        states.append(torch.cat([value.flatten() for value in network.parameters()]))
    plain = fresh(0)
    tuning(steps=3).teach(plain, target(), 0, lambda done, total: None)
    assert torch.equal(states[0], torch.cat([value.flatten() for value in plain.parameters()]))
    assert not torch.equal(states[0], states[1])
