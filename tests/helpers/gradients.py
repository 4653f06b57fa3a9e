"""Float64 loops of the gradient engine, and their loss by double backward."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from dsdistill.augment.dsa import Augmentation
from dsdistill.compute.config import OptimiserConfig
from dsdistill.compute.embedder import Embedder
from dsdistill.compute.learner import Learner
from dsdistill.data.batches import RealBatches
from dsdistill.distillation.loop import Distiller
from dsdistill.engines import GradientEngine
from dsdistill.engines.sources import Sources
from dsdistill.supply import TrainedConfig
from dsdistill.supply.base import NetworkRequest
from dsdistill.synthetic.initial import initialise
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.engines import CPU, toy
from tests.reference.gradient import gradient_matching_loss

DSA = Augmentation()
IDC = Augmentation(operators=("color", "crop", "cutout"), rule="idc")


def loop(network: str = "convnet3-w6", compile: bool = False, **told: Any) -> Distiller:
    """Put a float64 loop of three classes together by hand."""
    task, real = toy(told.pop("channels", 1), told.pop("size", 16), told.pop("counts", (9, 5, 7)))
    multi_formation, space = told.pop("multi_formation", MultiFormation()), told.pop("space", "network")
    augmentation, optimiser = told.pop("augmentation", DSA), told.pop("optimiser", OptimiserConfig(lr=0.1))
    class_chunk = told.pop("class_chunk", 0)
    ipc = told.pop("ipc", 1)
    engine = GradientEngine(**{"batch_real": 6, **told})
    synthetic = initialise(task, real, ipc, "mix", space, seed=0, multi_formation=multi_formation).double()
    supply = engine.build_networks(NetworkRequest(network, task, CPU, 0, real.fingerprint))
    supply.network.double()
    passes = (supply.network, task.size, CPU)
    learner = Learner(*passes, chunk=4, compile=compile)
    batches = RealBatches.of(task, real, 0, CPU, torch.float64)
    embedder, clusters = Embedder(*passes, compile=compile), engine.clusters(batches)
    sources = Sources(batches, supply, embedder, learner, augmentation, clusters)
    return Distiller(engine, synthetic, sources, optimiser, 6, class_chunk)


def naive(distiller: Distiller) -> tuple[Tensor, Tensor]:
    """Compute loss and pixel gradient by the reference, from the same draws."""
    sources, task, engine = distiller.sources, distiller.sources.task, distiller.engine
    assert isinstance(engine, GradientEngine)
    learner, rows = sources.classifier(), sources.siamese()
    real = [
        sources.batches.images(sources.positions(label, engine.batch_real))
        for label in range(task.num_classes)
    ]
    augment = [
        lambda x, row=rows[label : label + 1]: sources.augmentation(x, row[torch.zeros(len(x)).long()])
        for label in range(task.num_classes)
    ]
    synthetic = distiller.synthetic
    images = synthetic.of(sources.classes).split(synthetic.decoded_of(sources.classes))
    network = copy.deepcopy(learner.network).requires_grad_(True)
    loss = gradient_matching_loss(network, real, list(images), augment, engine.metric, engine.matched)
    return loss.detach(), torch.autograd.grad(loss, distiller.synthetic.images)[0]


CASES: dict[str, dict[str, Any]] = {
    "dsa": {},
    "dc colour": {"augmentation": Augmentation(operators=()), "channels": 3},
    "idc squared": {
        "metric": "squared",
        "matched": "convolutions",
        "augmentation": IDC,
        "space": "unit",
        "multi_formation": MultiFormation(factor=2),
    },
    "idc l1": {"metric": "l1", "matched": "convolutions", "augmentation": IDC, "space": "unit"},
    "all": {"metric": "cosine_whole", "matched": "all"},
    "uneven": {"ipc": (1, 3, 2)},
    "uneven, decoded": {"ipc": (2, 1, 3), "space": "unit", "multi_formation": MultiFormation(factor=2)},
    "fixed statistics": {"network": "convnet2-w6-batch"},
    "batch statistics": {
        "network": "convnet2-w6-batch",
        "metric": "squared",
        "supply": TrainedConfig(batch_norm="batch"),
    },
    "resnet": {"network": "resnet10-w8"},
}
