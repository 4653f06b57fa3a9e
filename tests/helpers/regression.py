"""Float64 loops of kernel regression on a small random task."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dsdistill.augment.dsa import Augmentation
from dsdistill.compute.config import OptimiserConfig
from dsdistill.compute.embedder import Embedder
from dsdistill.compute.learner import Learner
from dsdistill.data.batches import RealBatches
from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation.loop import Distiller
from dsdistill.engines import KernelEngine
from dsdistill.engines.sources import Sources
from dsdistill.seeding import generator
from dsdistill.supply.base import NetworkRequest
from dsdistill.supply.population import Population, PopulationConfig, RegressionTraining
from dsdistill.synthetic.initial import initialise
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation
from tests.helpers.engines import CPU, toy

NETWORK = "wideconvnet2-w4-inputbatch"
FAST = RegressionTraining(lr=0.01)
FEW = PopulationConfig(size=3, max_age=4, training=FAST)
FREPO = KernelEngine(batch_real=12, supply=FEW, separation=1.0)
LAMB = OptimiserConfig(kind="lamb", lr=0.01, eps=1e-6, schedule="cosine", final=0.1)


def loop(
    engine: KernelEngine = FREPO,
    network: str = NETWORK,
    *,
    data: tuple[Task, RealDataset] | None = None,
    ipc: int = 2,
    iterations: int = 6,
    optimiser: OptimiserConfig = LAMB,
    augmentation: str = "none",
    multi_formation: MultiFormation = IDENTITY,
    flip: bool = False,
) -> Distiller:
    """Put a float64 loop together by hand."""
    task, real = data or toy()
    synthetic = initialise(task, real, ipc, "real", "network", seed=0, multi_formation=multi_formation)
    synthetic = synthetic.double()
    synthetic.flip = flip
    supply = engine.build_networks(NetworkRequest(network, task, CPU, 0, real.fingerprint, real=real))
    supply.network.double()
    if supply.target_network is not None:
        supply.target_network.network.double()
    embedder = Embedder(supply.network, task.size, CPU, chunk=2)
    learner = Learner(supply.network, task.size, CPU, chunk=3)
    batches = RealBatches.of(task, real, 0, CPU, torch.float64)
    sources: Sources[Any] = Sources(batches, supply, embedder, learner, Augmentation.parse(augmentation))
    engine.prepare(synthetic, sources)
    return Distiller(engine, synthetic, sources, optimiser, iterations)


def population(loop: Distiller) -> Population:
    supply = loop.sources.supply
    assert isinstance(supply, Population)
    return supply


def real_batch(loop: Distiller) -> tuple[Tensor, Tensor]:
    """Return the real images that an iteration draws, as the equations have them, and their positions."""
    sources, count = loop.sources, loop.engine.batch_real  # type: ignore[attr-defined]
    stream = generator(0, "mixed-batches", sources.iteration)
    positions = torch.randperm(len(sources.data), generator=stream)[:count]
    images = sources.batches.images(positions)
    stream = generator(0, "augment", sources.iteration)
    rows = sources.augmentation.draw(len(images), sources.task.size, stream, shared_operator=False)
    return sources.augmentation(images, rows), positions
