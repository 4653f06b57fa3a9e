"""Float64 sets that are to be recovered from untrained teachers of a small random task."""

from __future__ import annotations

import torch

from dsdistill.augment.config import AugmentationConfig
from dsdistill.compute.embedder import Embedder
from dsdistill.compute.learner import Learner
from dsdistill.data.batches import RealBatches
from dsdistill.engines.decoupled import DecoupledEngine
from dsdistill.engines.sources import Sources
from dsdistill.networks import build_network
from dsdistill.seeding import forked
from dsdistill.supply.base import PassOptions
from dsdistill.supply.teachers import Teachers
from dsdistill.synthetic.initial import initialise
from dsdistill.synthetic.set import SyntheticSet
from dsdistill.teachers import Teacher
from tests.helpers.engines import CPU, toy

NETWORKS = ("convnet2-w6-batch", "convnet2-w4-batch")


def teacher(name: str) -> Teacher:
    """Return a teacher of the toy task whose statistics are those of some noise."""
    task, _ = toy()
    with forked(1, "test", name):
        network = build_network(name, task.channels, task.size, task.num_classes).double()
        network.train()(torch.randn(20, task.channels, task.size, task.size).double())
    return Teacher(network.eval().requires_grad_(False), name, "", architecture=name)


def recovery(
    engine: DecoupledEngine, names: tuple[str, ...] = NETWORKS[:1], ipc: int = 2
) -> tuple[SyntheticSet, Sources[Teachers]]:
    """Put a set and what an engine draws from together, prepared for the first iteration."""
    task, real = toy()
    supply = Teachers([teacher(name) for name in names])
    supply.ready(PassOptions(task.channels, task.size))
    embedder = Embedder(supply.network, task.size, CPU, chunk=4, features=engine.features(supply.network))
    batches = RealBatches.of(task, real, 0, CPU, torch.float64)
    sources = Sources(
        batches, supply, embedder, Learner(supply.network, task.size, CPU), AugmentationConfig().build(True)
    )
    sources.iterations = 3
    synthetic = initialise(task, real, ipc, "noise", "network", seed=0).double()
    engine.prepare(synthetic, sources)
    return synthetic.double(), sources
