"""Experts that walk at random, float64 loops that match them, and the same by unrolled steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
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
from dsdistill.engines import TrajectoryEngine
from dsdistill.engines.sources import Sources
from dsdistill.engines.trajectory import LabelsConfig, StartConfig, StudentConfig
from dsdistill.networks import build_network
from dsdistill.networks.layout import Layout
from dsdistill.seeding import forked, generator
from dsdistill.storage import expert_writer
from dsdistill.storage.expert_file import ExpertMetadata, TrainingRecord
from dsdistill.supply.base import NetworkRequest
from dsdistill.supply.trajectories import Trajectories, TrajectoriesConfig
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.initial import initialise
from dsdistill.synthetic.multi_formation import MultiFormation, decode
from tests.helpers.engines import CPU, toy
from tests.reference.trajectory import matching_loss, unrolled

NETWORK = "convnet2-w4"
LAST = 7
"""Epochs of the experts."""
PIXELS = OptimiserConfig(lr=0.1)
FIVE = StartConfig(most=5)
FAST = StudentConfig(lr=0.2, learning=OptimiserConfig(lr=1e-3))
HEAVY = StudentConfig(lr=0.1, momentum=0.9)
SOFT = LabelsConfig(learned=True)


def written(
    path: Path,
    task: Task,
    real: RealDataset,
    network: str = NETWORK,
    epochs: Sequence[int] = range(LAST + 1),
    count: int = 3,
) -> Path:
    """Write experts whose weights walk at random, a step an epoch."""
    experts, snapshots = [], []
    for expert in range(count):
        with forked(expert, "networks"):
            built = build_network(network, task.channels, task.size, task.num_classes)
        layout = Layout.of(built)
        start, buffers = layout.pack(built.state_dict())
        noise = torch.randn(epochs[-1], len(start), generator=generator(expert, "walk"))
        walk = start + 0.05 * torch.cat([torch.zeros(1, len(start)), noise.cumsum(0)])
        snapshots.append([(walk[epoch], buffers) for epoch in epochs])
        experts.append(TrainingRecord(0.5, 0.5, 1.0, "a machine", "2020-01-01T00:00:00+00:00"))
    facts = ExpertMetadata(
        network=network,
        layout=layout,
        dataset=task.name,
        fingerprint=real.fingerprint,
        classes=task.classes,
        channels=task.channels,
        size=task.size,
        preprocess=task.preprocess,
        epochs=tuple(epochs),
        seed=0,
        config="",
    )
    expert_writer.write(path, facts, zip(experts, snapshots, strict=True), count)
    return path


def buffers(folder: Path) -> Path:
    """Write experts for the toy task, a buffer for each of two networks."""
    for network in (NETWORK, f"{NETWORK}-batch"):
        written(folder / f"{network}.h5", *toy(1, 8), network)
    return folder


def loop(experts: Path, network: str = NETWORK, compile: bool = False, **told: Any) -> Distiller:
    """Put a float64 loop of three classes together by hand: sets of six images, unless told otherwise."""
    task, real = toy(1, 8)
    multi_formation, space, ipc = (
        told.pop("multi_formation", MultiFormation()),
        told.pop("space", "network"),
        told.pop("ipc", 2),
    )
    init, seed, optimiser = told.pop("init", "real"), told.pop("seed", 0), told.pop("optimiser", PIXELS)
    path = TrajectoriesConfig(path=str(experts / f"{network}.h5"))
    engine = TrajectoryEngine(**{"supply": path, "steps": 5, "start": FIVE, "student": FAST, **told})
    supply = engine.build_networks(NetworkRequest(network, task, CPU, seed, real.fingerprint))
    supply.network.double()
    synthetic = initialise(task, real, ipc, init, space, 0, multi_formation, supply).double()
    passes = (supply.network, task.size, CPU)
    learner = Learner(*passes, chunk=4, compile=compile)
    batches = RealBatches.of(task, real, seed, CPU)
    sources = Sources(batches, supply, Embedder(*passes, compile=compile), learner, Augmentation())
    engine.prepare(synthetic, sources)
    return Distiller(engine, synthetic, sources, optimiser, 6)


def naive(distiller: Distiller, **more: Any) -> tuple[Tensor, list[Tensor]]:
    """Compute the loss and its gradients to `learned` by the reference, from the same draws."""
    engine, synthetic, sources = distiller.engine, distiller.synthetic, distiller.sources
    assert isinstance(engine, TrajectoryEngine)
    assert isinstance(sources.supply, Trajectories)
    seed, iteration = sources.seed, sources.iteration
    turn, place = divmod(iteration, 3)
    expert = int(torch.randperm(3, generator=generator(seed, "experts-order", turn))[place])
    stream = generator(seed, "starts", iteration)
    epoch = int(torch.randint(engine.start.least, engine.start.below(iteration), (), generator=stream))
    like = torch.empty(0, dtype=torch.float64)
    walk = [sources.supply.weights(expert, at, like) for at in range(LAST + 1)]

    start, offset = walk[epoch].clone(), 0
    for index, value in enumerate(sources.supply.network.parameters()):
        part = slice(offset, offset := offset + value.numel())
        if value.dim() == 4 and engine.perturbation:
            stream = generator(seed, "perturbation", iteration, index)
            noise = torch.randn(value.shape, generator=stream).double().flatten()
            start[part] += engine.perturbation * noise / noise.norm() * start[part]

    # What the file would be decoded into, and which stored image each training image comes from.
    stored = DistilledSet(
        synthetic.unit_images().float(), synthetic.labels, ("a", "b", "c"), synthetic.preprocess,
        multi_formation=synthetic.multi_formation,
    )  # fmt: skip
    origins = stored.decode()[1]
    images: Tensor = synthetic.images
    if not synthetic.multi_formation.is_identity:
        images = torch.cat(
            [decode(each, synthetic.multi_formation) for each in images.split(synthetic.counts)]
        )
    if synthetic.space == "unit":
        images = synthetic.preprocess.to(CPU, torch.float64)(images)
    targets = (synthetic.labels if synthetic.label_logits is None else synthetic.label_logits)[origins]

    size, passes = engine.batch_synthetic or len(images), itertools.count()
    batches, left = list[Tensor](), list[Tensor]()
    for _ in range(engine.steps):
        if not left:
            stream = generator(seed, "student-batches", iteration, next(passes))
            left = list(torch.randperm(len(images), generator=stream).split(size))
        batches.append(left.pop())  # from the last on: the short one is the first

    def augment(step: int, batch: Tensor) -> Tensor:
        stream = generator(seed, "student-augment", iteration, step)
        return sources.augmentation(
            batch, sources.augmentation.draw(len(batch), 8, stream, shared_operator=True)
        )

    middle = engine.start.most // 2
    weight = math.log(abs(epoch - middle) + 8) / math.log(5)
    weight = 1.0 if not engine.balance else weight if epoch >= middle else 1 / weight
    assert synthetic.student_lr is not None
    lr, fixed = synthetic.student_lr, engine.steps - engine.last if engine.last else 0
    path = unrolled(
        sources.supply.network, start, images, targets, batches, augment, lr, engine.student.momentum,
        weight, fixed, **more,
    )  # fmt: skip
    epochs = engine.expert_epochs
    goals = {engine.steps: (1.0, walk[epoch + epochs])}
    for m in range(1, epochs) if engine.between != "none" else ():
        share = m / epochs if engine.between == "rising" else 1.0
        goals[m * (engine.steps // epochs)] = (share, walk[epoch + m])
    loss = matching_loss(path, goals)
    return loss.detach(), list(torch.autograd.grad(loss, learned(distiller)))


def learned(distiller: Distiller) -> list[Tensor]:
    """Return pixels, learning rate and, where they are learned, labels."""
    return list(dict(distiller.synthetic.named_parameters()).values())


def found(distiller: Distiller) -> tuple[Tensor, list[Tensor]]:
    """Compute the same by the engine."""
    (loss,) = distiller.engine.loss(distiller.synthetic, distiller.sources).values()
    return loss.detach(), list(torch.autograd.grad(loss, learned(distiller)))


def check(ours: tuple[Tensor, list[Tensor]], theirs: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-9, atol=0)
    for one, other in zip(ours[1], theirs[1], strict=True):
        largest = float(other.abs().max())
        assert largest > 0
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * largest)


CASES: dict[str, dict[str, Any]] = {
    "all at once": {},
    "batches": {"batch_synthetic": 4},  # of six images: two, four, two, …
    "momentum": {"student": HEAVY, "batch_synthetic": 4},
    "between": {"between": "equal", "expert_epochs": 3, "steps": 7},
    "between rising": {"between": "rising", "expert_epochs": 3, "student": HEAVY},
    "balance": {"balance": True},
    "perturbation": {"perturbation": 3.0},
    "labels": {"labels": SOFT, "batch_synthetic": 5},
    "last": {"last": 2, "student": HEAVY, "labels": SOFT},
    "batch normalisation": {"network": f"{NETWORK}-batch"},
    "tiles": {
        "multi_formation": MultiFormation(factor=2),
        "space": "unit",
        "labels": SOFT,
        "batch_synthetic": 9,
    },
    "tiles, hard labels": {"multi_formation": MultiFormation(factor=2), "space": "unit"},
    "tiles and whole": {
        "multi_formation": MultiFormation(factor=2, mode="multi"),
        "space": "unit",
        "labels": SOFT,
    },
    "some tiles": {
        "multi_formation": MultiFormation(factor=2, mode="bound", bound=6),
        "space": "unit",
        "labels": SOFT,
    },
    "uneven": {"ipc": (1, 3, 2), "batch_synthetic": 4, "labels": SOFT},
    "uneven, some tiles": {
        "ipc": (1, 3, 2),
        "multi_formation": MultiFormation(factor=2, mode="bound", bound=6),
        "space": "unit",
        "labels": SOFT,
    },
    "all together": {
        "between": "equal",
        "student": HEAVY,
        "batch_synthetic": 4,
        "balance": True,
        "perturbation": 1.0,
        "labels": SOFT,
        "last": 4,
        "start": StartConfig(least=1, most=5, widen_from=2, widen_until=3),
    },
}

RECIPE = """
title = "a trajectory method"
paper = "none"
follows = "paper"
protocol = "dm"

[defaults]
network = "convnet2-w4"
iterations = 6
optimiser = { lr = 1.0, ema = 0.9 }
augmentation = { operators = "color_crop_cutout_scale_rotate", align_corners = true }

[defaults.engine]
kind = "trajectory"
steps = 4
start = { most = 3, widen_from = 1, widen_until = 4 }
batch_synthetic = 7
student = { lr = 0.05, momentum = 0.5, learning = { lr = 1e-3 } }
labels = { learned = true, optimiser = { lr = 1.0, momentum = 0.9 } }
"""
"""A recipe of a trajectory method, as a file."""
