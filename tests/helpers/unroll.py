"""Students whose steps are walked back, and what they learn from."""

from __future__ import annotations

import torch
from torch import Tensor

from dsdistill.augment.dsa import Augmentation
from dsdistill.compute.learner import Learner
from dsdistill.compute.unroll import UnrolledStudent
from dsdistill.networks import build_network
from dsdistill.networks.layout import Layout
from dsdistill.seeding import forked, generator
from dsdistill.supply.base import normalise_by_batch
from tests.reference.trajectory import unrolled

CPU = torch.device("cpu")
COUNT, CLASSES, SIDE = 6, 3, 8


def noise(*shape: int, stream: str = "noise") -> Tensor:
    return torch.randn(shape, generator=generator(0, stream), dtype=torch.float64)


def augment(step: int, images: Tensor) -> Tensor:
    chosen = Augmentation()
    drawn = chosen.draw(len(images), SIDE, generator(0, "augment", step), shared_operator=True)
    return chosen(images, drawn)


class Case:
    """A student of some steps, what it learns from and where it is to arrive."""

    def __init__(
        self, steps: int, soft: bool, network: str = "convnet2-w4", weight: float = 1.0, chunk: int = 0
    ) -> None:
        with forked(0, "test"):
            self.network = build_network(network, 1, SIDE, CLASSES).double().requires_grad_(False).eval()
        normalise_by_batch(self.network, True)
        layout = Layout.of(self.network)
        self.start = torch.cat([each.flatten() for each in self.network.parameters()])
        self.goal = self.start + 0.05 * noise(len(self.start), stream="goal")
        self.between = self.start + 0.05 * noise(len(self.start), stream="between")
        self.images = noise(COUNT, 1, SIDE, SIDE, stream="images").requires_grad_()
        hard = torch.arange(COUNT) % CLASSES
        self.targets = noise(COUNT, CLASSES, stream="labels").requires_grad_() if soft else hard
        self.lr = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        # Batches of four and of two from six images, with an image that is drawn in several steps.
        order = [torch.randperm(COUNT, generator=generator(0, "order", step)) for step in range(steps)]
        self.batches = [each[: 4 if step % 2 else 2] for step, each in enumerate(order)]
        learner = Learner(self.network, SIDE, CPU, chunk=chunk)
        self.weight = weight
        self.student = UnrolledStudent(
            learner, layout, self.images.detach(), self.targets.detach(), self.batches, augment, weight
        )

    def unrolled(self, momentum: float = 0.0, fixed: int = 0) -> list[Tensor]:
        return unrolled(
            self.network,
            self.start.clone(),
            self.images,
            self.targets,
            self.batches,
            augment,
            self.lr,
            momentum,
            self.weight,
            fixed,
        )
