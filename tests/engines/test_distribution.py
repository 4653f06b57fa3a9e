"""The distribution engine against its equations, in float64, class by class."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dsdistill.augment.dsa import Augmentation
from dsdistill.compute.embedder import Embedder
from dsdistill.compute.learner import Learner
from dsdistill.compute.pixel_optimiser import OptimiserConfig
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation.loop import Distiller
from dsdistill.engines import DistributionEngine, Engine
from dsdistill.engines.sources import Sources
from dsdistill.objectives.distributions import class_sums, mean_discrepancy
from dsdistill.synthetic.initial import initialise
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation
from tests.reference.dm import distribution_matching_loss
from tests.synthetic.test_multi_formation import naive as naive_decode

CPU = torch.device("cpu")


def toy(channels: int = 1, size: int = 12, counts: tuple[int, ...] = (9, 5, 7)) -> tuple[Task, RealDataset]:
    """Make a small random data set of uneven classes."""
    generator = torch.Generator().manual_seed(3)
    classes = tuple("abcdefghij"[: len(counts)])
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    images = torch.randint(0, 256, (len(labels), channels, size, size), generator=generator).to(torch.uint8)
    preprocess = Standardise.of((0.4,) * channels, (0.3,) * channels)
    return Task("toy", classes, channels, size, preprocess, mirror=True), RealDataset(
        "toy", "train", images, labels, classes
    )


def loop(
    task: Task,
    real: RealDataset,
    network: str,
    *,
    batch_real: int = 6,
    ipc: int = 2,
    class_chunk: int = 0,
    engine: Engine | None = None,
    multi_formation: MultiFormation = IDENTITY,
) -> Distiller:
    """Put a float64 loop together by hand."""
    engine = engine or DistributionEngine(batch_real=batch_real)
    synthetic = initialise(task, real, ipc, "real", "network", seed=0, multi_formation=multi_formation)
    supply = engine.networks(network, task, CPU)
    supply.network.double()
    features = engine.features(supply.network)
    embedder = Embedder(supply.network, task.size, CPU, chunk=4, features=features)
    learner = Learner(supply.network, task.size, CPU)
    sources = Sources(task, real, supply, embedder, learner, Augmentation(), 0, CPU, torch.float64)
    return Distiller(engine, synthetic.double(), sources, OptimiserConfig(), 3, class_chunk)


def decoded(distiller: Distiller, images: torch.Tensor) -> list[torch.Tensor]:
    """Cut and enlarge each class's images [n, C, H, W], stored in network space, pixel by pixel."""
    preprocess = distiller.sources.task.preprocess.to(CPU, torch.float64)
    factor, ipc = distiller.synthetic.multi_formation.factor, distiller.synthetic.ipc
    return [preprocess(naive_decode(part, factor)) for part in preprocess.inverse(images).split(ipc)]


def drawn(distiller: Distiller) -> tuple[list[torch.Tensor], list[Callable[[torch.Tensor], torch.Tensor]]]:
    """Return what this iteration draws: real images of each class, and each class's augmentation."""
    sources, task = distiller.sources, distiller.sources.task
    sources.supply.draw(0, sources.iteration)
    rows = sources.siamese()
    count = distiller.engine.wanted
    real = [
        task.preprocess.to(CPU, torch.float64)(sources.data.unit(sources.indices(label, count)).double())
        for label in range(task.num_classes)
    ]
    augment = [
        lambda x, row=rows[label : label + 1]: sources.augmentation(x, row[torch.zeros(len(x)).long()])
        for label in range(task.num_classes)
    ]
    return real, augment


def naive(distiller: Distiller) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute loss and pixel gradient with the plain per-class loop, from the same draws."""
    sources = distiller.sources
    real, augment = drawn(distiller)
    images = distiller.synthetic.images.detach().clone().requires_grad_()
    loss = distribution_matching_loss(
        sources.supply.network.embed, real, images.split(distiller.synthetic.ipc), augment
    )
    return loss.detach(), torch.autograd.grad(loss, images)[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("iteration", range(6))  # six draws of the augmentation
def test_loss_and_pixel_gradient_equal_a_naive_loop_over_classes(channels: int, iteration: int) -> None:
    distiller = loop(*toy(channels), "convnet2-w8")
    distiller.sources.iteration = iteration
    expected, gradient = naive(distiller)
    (loss,) = distiller.engine.loss(distiller.synthetic, distiller.sources).values()
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(distiller.synthetic.images.grad, gradient, rtol=1e-10, atol=1e-12)
    assert gradient.abs().max() > 0


def test_taking_classes_in_turns_changes_nothing() -> None:
    whole, turns = (loop(*toy(), "convnet2-w8", class_chunk=chunk) for chunk in (0, 1))
    for one, other in zip(whole, turns, strict=True):
        torch.testing.assert_close(one.terms, other.terms, rtol=1e-10, atol=0)
    torch.testing.assert_close(whole.synthetic.images, turns.synthetic.images, rtol=1e-10, atol=1e-12)
    assert turns.classes_at_once == 1


def test_a_network_that_couples_samples_sees_one_batch_of_all_classes() -> None:
    distiller = loop(*toy(), "convnet2-w8-batch", class_chunk=1)
    assert distiller.classes_at_once == 3
    sources = distiller.sources
    network, rows = sources.network(), sources.siamese()
    ((images, _),) = list(sources.real(6, rows))
    torch.testing.assert_close(network.frozen(images), network.network.embed(images))


def test_small_classes_give_all_they_have() -> None:
    task, real = toy(counts=(9, 2, 7))
    sources = loop(task, real, "convnet2-w8").sources
    assert sources.counts(6).tolist() == [6, 2, 6]
    ((images, owner),) = list(sources.real(6, sources.siamese()))
    assert owner.bincount().tolist() == [6, 2, 6]
    assert len(images) == 14


def test_means_are_those_of_each_class_whatever_parts_its_images_come_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distiller = loop(*toy(), "convnet2-w8")
    real, augment = drawn(distiller)
    sources = distiller.sources
    expected = [sources.supply.network.embed(augment[label](real[label])).mean(0) for label in (1, 2)]
    monkeypatch.setattr(Sources, "part_bytes", 4 * 12 * 12 * 4)
    sources.classes = torch.tensor([1, 2])
    rows = sources.siamese()
    assert [owner.tolist() for _, owner in sources.real(6, rows)] == [[0, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1]]
    torch.testing.assert_close(sources.real_means(6, rows), torch.stack(expected))


def test_draws_depend_on_the_iteration_only() -> None:
    one, other = (loop(*toy(), "convnet2-w8").sources for _ in range(2))
    for sources, path in ((one, [0, 1, 5]), (other, [5])):
        for iteration in path:
            sources.iteration = iteration
            sources.network()
    for a, b in zip(one.supply.network.parameters(), other.supply.network.parameters(), strict=True):
        assert torch.equal(a, b)
    ((a, _),), ((b, _),) = (list(sources.real(4, sources.siamese())) for sources in (one, other))
    assert torch.equal(a, b)


def test_equal_distributions_have_no_discrepancy() -> None:
    features = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    owner = torch.tensor([0, 0, 1, 1, 1, 1])
    means = class_sums(features, owner, 2) / torch.tensor([[2.0], [4.0]])
    assert mean_discrepancy(means, torch.stack([features[:2].mean(0), features[2:].mean(0)])) < 1e-12
    assert mean_discrepancy(torch.zeros(3, 5), torch.ones(3, 5)) == 15  # a sum, not a mean
