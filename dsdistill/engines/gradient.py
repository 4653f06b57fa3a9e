"""Gradient matching: move synthetic images until they train a network the way real images do.

DC (Zhao, Mopuri & Bilen, *Dataset Condensation with Gradient Matching*, ICLR 2021), with a network θ that is
trained as the images improve:

    L = Σ_c D(∇_θ CE(A(S_c)), ∇_θ CE(A(real_c)))

DSA adds the siamese augmentation A; IDC (Kim et al., ICML 2022) trains θ on real data and decodes each stored
image into several. The gradient to the pixels is of second order, yet no graph of a graph is made: see
`dsdistill.compute.jvp`. One class's graph is held at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill import seeding
from dsdistill.compute.custom_gradient import attach_gradients
from dsdistill.data.real import Task
from dsdistill.engines.base import Engine, Sizes
from dsdistill.engines.sources import Sources
from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.objectives.gradients import Matched, Metric, distance_and_grad, matched_parameters
from dsdistill.supply.base import NetworkTraining, Supply
from dsdistill.supply.trained import Trained
from dsdistill.synthetic.set import SyntheticSet


@dataclass(frozen=True, kw_only=True)
class GradientEngine(Engine):
    """Match the gradients that real and synthetic images of a class give a network in training."""

    kind: Literal["gradient"] = "gradient"
    metric: Metric = "cosine"
    """cosine per output channel (DC), squared, l1, l1_mean (IDC), or cosine_whole."""
    matched: Matched = "weights"
    """Gradients of which parameters: weights (two or more dimensions, DC), convolutions (IDC) or all."""
    batch_real: Annotated[int, Ge(1)] = 256
    """Real images per class and iteration; a smaller class gives all it has."""
    batch_synthetic: Annotated[int, Ge(0)] = 0
    """Decoded images of a class matched at once, a random choice; 0 takes all."""
    training: NetworkTraining = field(default_factory=NetworkTraining)

    def separable(self, network: Network) -> bool:
        """Return True: every class has passes of its own."""
        return True

    @property
    def wanted(self) -> int:
        """Return ``batch_real``."""
        return self.batch_real

    def images(self, sizes: Sizes) -> int:
        """Count images differentiated once three times, and synthetic ones, of second order, eight times."""
        trained = self._copies(sizes) * self.training.images(sizes.total)
        matched = self._matched(sizes) * len(sizes.counts)
        return 3 * (sizes.real(self.batch_real) + trained) + 8 * matched

    def held(self, sizes: Sizes, classes: int, chunk: int, size: int) -> int:
        """Count one class's dual pass, or a pass of real images, or a training batch, whichever is most."""
        most = sizes.total if self.training.on == "synthetic" else self.training.samples
        training = self._copies(sizes) * min(self.training.batch_size, most)
        return max(2 * self._matched(sizes) * 4, min(chunk, self.batch_real) * size, training * size)

    def _matched(self, sizes: Sizes) -> int:
        """Count the synthetic images of a class that a step matches."""
        return sizes.copies * min(sizes.decoded, self.batch_synthetic or sizes.decoded)

    def _copies(self, sizes: Sizes) -> int:
        """Return how often the network sees each image it is trained on."""
        return sizes.copies if self.training.on == "synthetic" else 1

    def together(self, counts: Tensor) -> int:
        """Count those of one class."""
        return int(counts.clamp(max=self.batch_real).max())

    def prepare(self, synthetic: SyntheticSet, supply: Supply, seed: int) -> None:
        """Refuse to normalise a single image of a class by its own statistics.

        Raises:
            UserError: saying so.
        """
        by_batch = supply.network.has_batch_norm and self.training.batch_norm == "batch"
        if by_batch and min(synthetic.matched_per_class, self.batch_real) == 1:
            raise UserError(
                "one image of a class is no batch to normalise by: choose a larger --ipc, "
                "engine.training.batch_norm=refreshed, or a network of instance normalisation"
            )

    def networks(self, name: str, task: Task, device: torch.device) -> Supply:
        """Return networks that are trained between steps.

        Raises:
            UserError: the network has no parameter that the engine is told to match.
        """
        supply = Trained(name, task, device, self.training)
        matched_parameters(supply.network, self.matched, self.metric)
        return supply

    def loss(self, synthetic: SyntheticSet, sources: Sources) -> dict[str, Tensor]:
        """Return the term ``gradient``: the distances of ``sources.classes``, summed."""
        network, rows = sources.classifier(), sources.siamese()
        names = matched_parameters(network.network, self.matched, self.metric)
        most = min(self.batch_real, sources.largest_class)
        total = torch.zeros((), device=synthetic.images.device, dtype=synthetic.images.dtype)
        # Unbound, not indexed class by class, whose backward would write zeros for all the others each time.
        fake = synthetic.of(sources.classes).unbind()
        for position, label in enumerate(sources.classes.tolist()):
            row = rows[position : position + 1]
            real = sources.real_of(label, self.batch_real, row)
            labels = torch.full((len(real),), label, device=real.device)
            theirs = network.gradient(real, labels, names, most=most)
            chosen = synthetic.batch(self._chosen(fake[position], sources, label))
            images = sources.augmentation(chosen, row[torch.zeros(len(chosen), dtype=torch.int64)])
            targets = torch.full((len(images),), label, device=images.device)
            ours = network.gradient(images.detach(), targets, names, exact=True)
            distance, slopes = distance_and_grad(self.metric, ours, theirs)
            slope = network.image_grad(images, targets, dict(zip(names, slopes, strict=True)))
            total = total + attach_gradients(distance, (images, slope))
        return {"gradient": total}

    def _chosen(self, images: Tensor, sources: Sources, label: int) -> Tensor:
        """Draw at most ``batch_synthetic`` of a class's images."""
        if not self.batch_synthetic or len(images) <= self.batch_synthetic:
            return images
        stream = seeding.generator(sources.seed, "synthetic-batches", sources.iteration, label)
        chosen = torch.randperm(len(images), generator=stream)[: self.batch_synthetic]
        return images[chosen.to(images.device)]
