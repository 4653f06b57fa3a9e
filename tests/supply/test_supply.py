"""How networks are trained between steps, against plain loops that draw what is drawn by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsdistill import networks, seeding
from dsdistill.augment.dsa import Augmentation
from dsdistill.augment.mix import CutMix
from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation.loop import Distiller
from dsdistill.supply import TrainedConfig
from dsdistill.synthetic.multi_formation import MultiFormation, decode
from dsdistill.synthetic.set import SyntheticSet
from tests.helpers.engines import CPU, iterations, toy
from tests.helpers.gradients import DSA, IDC, loop
from tests.helpers.marks import slow_but_first

SEED = 0
NONE = Augmentation(operators=())
Named = dict[str, Tensor]


class Plain:
    """One network and its velocities, trained as the papers say, one small step after the other."""

    def __init__(
        self,
        name: str,
        training: TrainedConfig,
        augmentation: Augmentation,
        task: Task,
        real: RealDataset,
    ) -> None:
        self.name, self.training, self.augmentation = name, training, augmentation
        self.task, self.real = task, real
        self.mixed: list[bool] = []

    def draw(self, number: int) -> None:
        """Begin network ``number`` of the run, with its warm-up on real data."""
        with seeding.forked(SEED, "networks", number):
            network = networks.build_network(
                self.name, self.task.channels, self.task.size, self.task.num_classes
            )
        self.network = network.double().train()
        self.velocity: dict[str, Tensor] = {}
        per_epoch = len(self.real) // self.training.batch_size
        for epoch in range(number * self.training.warm_up, (number + 1) * self.training.warm_up):
            for batch in range(per_epoch):
                self.real_batch("warm-up", epoch, batch, per_epoch)

    def real_batch(self, stream: str, epoch: int, batch: int, per_epoch: int) -> None:
        order = torch.randperm(len(self.real), generator=seeding.generator(SEED, stream, epoch))
        size = self.training.batch_size
        rows = order[batch * size : (batch + 1) * size]
        images = self.task.preprocess.to(CPU, torch.float64)(self.real.unit(rows).double())
        self.step(images, self.real.labels[rows], stream, epoch * per_epoch + batch)

    def on_real(self, iteration: int) -> None:
        """Go on through the shuffled real images: ``samples`` more, in whole batches."""
        size = self.training.batch_size
        count, per_epoch = -(-self.training.samples // size), len(self.real) // size
        for number in range(iteration * count, (iteration + 1) * count):
            self.real_batch("inner", number // per_epoch, number % per_epoch, per_epoch)

    def on_synthetic(self, iteration: int, synthetic: SyntheticSet) -> None:
        """Take epochs over the set as it is now, decoded where it is to be."""
        stored = synthetic.images.detach()
        if not synthetic.multi_formation.is_identity:
            decoded = decode(stored.unflatten(0, (self.task.num_classes, -1)), synthetic.multi_formation)
            stored = self.task.preprocess.to(CPU, torch.float64)(decoded.flatten(0, 1))
        labels = torch.arange(self.task.num_classes).repeat_interleave(len(stored) // self.task.num_classes)
        for epoch in range(self.training.epochs):
            order = torch.randperm(len(stored), generator=seeding.generator(SEED, "inner", iteration, epoch))
            for batch, rows in enumerate(order.split(self.training.batch_size)):
                self.step(stored[rows], labels[rows], "inner", iteration, epoch, batch)

    def step(self, images: Tensor, labels: Tensor, stream: str, *number: int) -> None:
        """Augment and mix a batch, and take one step of SGD with momentum and weight decay."""
        told = self.training
        operators = [name for name in self.augmentation.operators if not (told.cutmix and name == "cutout")]
        augmentation = Augmentation(operators=tuple(operators), rule=self.augmentation.rule)
        generator = seeding.generator(SEED, f"{stream}-augment", *number)
        rows = augmentation.draw(len(images), self.task.size, generator, shared_operator=True)
        images = augmentation(images, rows)
        kept, partner = 1.0, torch.arange(len(images))
        if told.cutmix:
            generator = seeding.generator(SEED, f"{stream}-mix", *number)
            mix = CutMix(probability=told.cutmix).draw(len(images), self.task.size, generator)
            (top, bottom), (left, right) = mix.rows[0].tolist(), mix.columns[0].tolist()
            partner, kept = mix.partner, 1 - (bottom - top) * (right - left) / self.task.size**2
            theirs, images = images[partner], images.clone()
            images[:, :, top:bottom, left:right] = theirs[:, :, top:bottom, left:right]
            self.mixed.append(kept < 1)
        logits = self.network(images)
        loss = kept * F.cross_entropy(logits, labels) + (1 - kept) * F.cross_entropy(logits, labels[partner])
        self.network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for name, weight in self.network.named_parameters():
                assert weight.grad is not None
                change = weight.grad + told.weight_decay * weight
                self.velocity[name] = told.momentum * self.velocity.get(name, 0.0) + change
                weight -= told.lr * self.velocity[name]


def trained(distiller: Distiller) -> Iterator[Named]:
    """Iterate a loop; yield its network's state after every iteration."""
    for _ in iterations(distiller):
        yield {name: value.clone() for name, value in distiller.sources.supply.network.state_dict().items()}


def expected(distiller: Distiller, plain: Plain) -> Iterator[Named]:
    """Yield what it must be; to be taken after the iteration, as it reads the images that were stepped."""
    lifetime = plain.training.updates_per_network
    for iteration in range(distiller.iterations):
        if iteration % lifetime == 0:
            plain.draw(iteration // lifetime)
        if (iteration + 1) % lifetime:  # else a new one is due
            if plain.training.on == "real":
                plain.on_real(iteration)
            else:
                plain.on_synthetic(iteration, distiller.synthetic)
        yield {name: value.clone() for name, value in plain.network.state_dict().items()}


REAL = TrainedConfig(on="real", updates_per_network=3, samples=10, batch_size=4, lr=0.05)
SYNTHETIC = TrainedConfig(on="synthetic", updates_per_network=3, epochs=2, batch_size=2, lr=0.05)


def changed(training: TrainedConfig, **told: Any) -> TrainedConfig:
    return TrainedConfig(**{**vars(training), **told})


FULL: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.05, "cutmix": 0.5, "warm_up": 2}

CASES: dict[str, tuple[TrainedConfig, Augmentation]] = {
    "real": (REAL, NONE),
    "momentum": (changed(REAL, momentum=0.9), NONE),
    "weight decay": (changed(REAL, weight_decay=0.05), NONE),
    "warm-up": (changed(REAL, warm_up=2), NONE),
    "cutmix": (changed(REAL, cutmix=0.5), NONE),
    "one operator a batch": (REAL, DSA),
    "cutout": (REAL, IDC),
    "no cutout beside cutmix": (changed(REAL, cutmix=0.5), IDC),
    "idc": (changed(REAL, **FULL), IDC),
    "synthetic": (SYNTHETIC, NONE),
    "dsa": (SYNTHETIC, DSA),
    "synthetic and all": (changed(SYNTHETIC, **FULL), IDC),
}


@pytest.mark.parametrize("case", slow_but_first(reversed(CASES)))
def test_networks_are_trained_as_by_a_plain_loop(case: str) -> None:
    training, augmentation = CASES[case]
    distiller = loop("convnet2-w4", supply=training, augmentation=augmentation, size=12)
    plain = Plain("convnet2-w4", training, augmentation, *toy(1, 12))
    for found, wanted in zip(trained(distiller), expected(distiller, plain), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)
    assert not training.cutmix or {True, False} == set(plain.mixed)


@pytest.mark.slow
def test_a_network_is_trained_on_the_decoded_images() -> None:
    distiller = loop(
        "convnet2-w4", supply=SYNTHETIC, space="unit", multi_formation=MultiFormation(factor=2), size=12
    )
    plain = Plain("convnet2-w4", SYNTHETIC, DSA, *toy(1, 12))
    for found, wanted in zip(trained(distiller), expected(distiller, plain), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


# Batch normalisation ----------------------------------------------------------------------------------------

COUNTS = (20, 5, 17)


def statistics(task: Task, real: RealDataset, iteration: int) -> Tensor:
    """Draw 16 images of each class, or all it has."""
    chosen = []
    for label in range(len(COUNTS)):
        members = torch.nonzero(real.labels == label).flatten()
        stream = seeding.generator(SEED, "statistics", iteration, label)
        chosen.append(members[torch.randperm(len(members), generator=stream)[:16]])
    assert [len(each) for each in chosen] == [16, 5, 16]
    return task.preprocess.to(CPU, torch.float64)(real.unit(torch.cat(chosen)).double())


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def test_statistics_are_those_of_16_images_a_class_and_then_fixed() -> None:
    task, real = toy(1, 12, COUNTS)
    distiller = loop("convnet2-w4-batch", size=12, counts=COUNTS)
    network = distiller.sources.classifier().network
    plain = Plain("convnet2-w4-batch", TrainedConfig(), NONE, task, real)
    plain.draw(0)
    images = statistics(task, real, 0)
    plain.network(images)
    torch.testing.assert_close(dict(network.state_dict()), dict(plain.network.state_dict()))

    maps = network.blocks[0].conv(images)  # and by hand: a tenth of the way from mean 0 and variance 1
    first = norms(network)[0]
    torch.testing.assert_close(first.running_mean, 0.1 * maps.mean((0, 2, 3)))
    torch.testing.assert_close(first.running_var, 0.9 + 0.1 * maps.var((0, 2, 3)))

    before = {name: value.clone() for name, value in network.state_dict().items()}
    distiller.engine.loss(distiller.synthetic, distiller.sources)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)
    alone = distiller.sources.learner.loss(images[:1], torch.tensor([0]))
    torch.testing.assert_close(alone, F.cross_entropy(plain.network.eval()(images[:1]), torch.tensor([0])))


@pytest.mark.slow
@pytest.mark.parametrize("training", [REAL, SYNTHETIC], ids=["real", "synthetic"])
def test_statistics_are_refreshed_before_every_step_of_the_pixels(training: TrainedConfig) -> None:
    task, real = toy(1, 12, COUNTS)
    distiller = loop("convnet2-w4-batch", supply=training, size=12, counts=COUNTS)
    plain = Plain("convnet2-w4-batch", training, DSA, task, real)
    for iteration, found in enumerate(trained(distiller)):
        if iteration % 3 == 0:
            plain.draw(iteration // 3)
        plain.network(statistics(task, real, iteration))
        if (iteration + 1) % 3:
            if training.on == "real":
                plain.on_real(iteration)
            else:
                plain.on_synthetic(iteration, distiller.synthetic)
        torch.testing.assert_close(found, dict(plain.network.state_dict()), rtol=1e-8, atol=1e-10)


def test_statistics_of_the_batch_at_hand() -> None:
    distiller = loop("convnet2-w4-batch", supply=TrainedConfig(batch_norm="batch"), size=12)
    network = distiller.sources.classifier().network
    assert all(norm.training for norm in norms(network))
    images = torch.randn(5, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(5) % 3
    plain = Plain("convnet2-w4-batch", TrainedConfig(), NONE, *toy(1, 12))
    plain.draw(0)
    torch.testing.assert_close(
        distiller.sources.learner.loss(images, labels), F.cross_entropy(plain.network(images), labels)
    )
