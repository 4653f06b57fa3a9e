"""Float64 loops of a small random task, and what an iteration of them draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dsdistill.augment.dsa import Augmentation
from dsdistill.compute.config import OptimiserConfig
from dsdistill.compute.embedder import Embedder
from dsdistill.compute.learner import Learner
from dsdistill.data.batches import RealBatches
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation.loop import Distiller, IterationReport
from dsdistill.engines import DistributionEngine, Engine
from dsdistill.engines.sources import Sources
from dsdistill.supply.base import NetworkRequest
from dsdistill.synthetic.initial import initialise
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation
from tests.reference.dm import distribution_matching_loss
from tests.reference.multi_formation import decode as naive_decode

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
    ipc: int | Sequence[int] = 2,
    class_chunk: int = 0,
    engine: Engine[Any] | None = None,
    multi_formation: MultiFormation = IDENTITY,
    compile: bool = False,
) -> Distiller:
    """Put a float64 loop together by hand."""
    engine = engine or DistributionEngine(batch_real=batch_real)
    synthetic = initialise(task, real, ipc, "real", "network", seed=0, multi_formation=multi_formation)
    supply = engine.build_networks(NetworkRequest(network, task, CPU, 0, real.fingerprint))
    supply.network.double()
    features = engine.features(supply.network)
    embedder = Embedder(supply.network, task.size, CPU, chunk=4, features=features, compile=compile)
    learner = Learner(supply.network, task.size, CPU, compile=compile)
    batches = RealBatches.of(task, real, 0, CPU, torch.float64)
    sources = Sources(batches, supply, embedder, learner, Augmentation(), engine.clusters(batches))
    return Distiller(engine, synthetic.double(), sources, OptimiserConfig(), 3, class_chunk)


def iterations(distiller: Distiller) -> Iterator[IterationReport]:
    """Take a loop through the iterations that are left."""
    while distiller.iteration < distiller.iterations:
        yield distiller.step()


def whole_and_resumed(make: Callable[[], Distiller], stop: int) -> tuple[Distiller, Distiller]:
    """Finish a loop, and one that goes on from the state of another after some iterations."""
    whole, stopped, resumed = make(), make(), make()
    for _ in iterations(whole):
        pass
    for report in iterations(stopped):
        if report.iteration == stop:
            break
    resumed.load_state_dict({name: value.clone() for name, value in stopped.state_dict().items()})
    for _ in iterations(resumed):
        pass
    return whole, resumed


def decoded(distiller: Distiller, images: torch.Tensor) -> list[torch.Tensor]:
    """Cut and enlarge each class's images [n, C, H, W], stored in network space, pixel by pixel."""
    preprocess = distiller.sources.task.preprocess.to(CPU, torch.float64)
    factor, counts = distiller.synthetic.multi_formation.factor, distiller.synthetic.counts
    return [preprocess(naive_decode(part, factor)) for part in preprocess.inverse(images).split(counts)]


def drawn(distiller: Distiller) -> tuple[list[torch.Tensor], list[Callable[[torch.Tensor], torch.Tensor]]]:
    """Return what this iteration draws: real images of each class, and each class's augmentation."""
    sources, task = distiller.sources, distiller.sources.task
    sources.drawn()
    rows = sources.siamese()
    count = distiller.engine.batch_real  # type: ignore[attr-defined]
    real = [sources.batches.images(sources.positions(label, count)) for label in range(task.num_classes)]
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
        sources.supply.network.embed, real, images.split(distiller.synthetic.counts), augment
    )
    return loss.detach(), torch.autograd.grad(loss, images)[0]


def loss_and_gradient(distiller: Distiller) -> tuple[Tensor, Tensor]:
    """Return loss and pixel gradient as the engine has them."""
    distiller.synthetic.images.grad = None
    terms = distiller.engine.loss(distiller.synthetic, distiller.sources)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    assert distiller.synthetic.images.grad is not None
    return loss.detach(), distiller.synthetic.images.grad
