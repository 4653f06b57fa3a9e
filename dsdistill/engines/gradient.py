"""Gradient matching: move synthetic images until they train a network the way real images do.

DC (Zhao, Mopuri & Bilen, *Dataset Condensation with Gradient Matching*, ICLR 2021), with a network θ that is
trained as the images improve:

    L = Σ_c D(∇_θ CE(A(S_c)), ∇_θ CE(A(real_c)))

DSA adds the siamese augmentation A; IDC (Kim et al., ICML 2022) trains θ on real data and decodes each stored
image into several. The gradient to the pixels is of second order, yet no graph of a graph is made: see
`dsdistill.compute.jvp`. One class's graph is held at a time.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill.compute.custom_gradient import attach_gradients
from dsdistill.engines.base import IMAGE_COPIES
from dsdistill.engines.matching import MatchingEngine
from dsdistill.engines.sources import Sources
from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.objectives.gradients import Matched, Metric, distance_and_grad, matched_parameters
from dsdistill.supply import SupplyConfig, TrainedConfig
from dsdistill.supply.base import NetworkRequest, Supply
from dsdistill.supply.cost import Cost, Sizes
from dsdistill.synthetic.set import SyntheticSet


@dataclass(frozen=True, kw_only=True)
class GradientEngine(MatchingEngine):
    """Match the gradients that real and synthetic images of a class give a network."""

    kind: Literal["gradient"] = "gradient"
    metric: Metric = "cosine"
    """cosine per output channel (DC), squared, l1, l1_mean (IDC), or cosine_whole."""
    matched: Matched = "weights"
    """Gradients of which parameters: weights (two or more dimensions, DC), convolutions (IDC) or all."""
    batch_synthetic: Annotated[int, Ge(0)] = 0
    """Decoded images of a class matched at once, a random choice; 0 takes all."""
    supply: SupplyConfig = field(default_factory=TrainedConfig)
    """Where networks come from: one in training, drawn anew now and then (DC, DSA, IDC)."""

    def separable(self, network: Network) -> bool:
        """Return True: every class has passes of its own."""
        return True

    def build_networks(self, request: NetworkRequest) -> Supply:
        """Build the supply.

        Raises:
            UserError: the network has no parameter of those to be matched.
        """
        supply = super().build_networks(request)
        matched_parameters(supply.network, self.matched, self.metric)
        return supply

    def prepare(self, synthetic: SyntheticSet, sources: Sources[Supply]) -> None:
        """Refuse to normalise a single image of a class by its own statistics.

        Raises:
            UserError: saying so.
        """
        by_batch = sources.supply.network.has_batch_norm and self.supply.batch_statistics
        fewest = min(synthetic.least_matched, self.batch_real)
        if self.batch_synthetic:
            fewest = min(fewest, synthetic.copies * self.batch_synthetic)
        if by_batch and fewest == 1:
            raise UserError(
                "one image of a class is no batch to normalise by: choose a larger --ipc or batch, "
                "engine.supply.batch_norm=refreshed, or a network of instance normalisation"
            )

    def loss(self, synthetic: SyntheticSet, sources: Sources[Supply]) -> dict[str, Tensor]:
        """Return the term ``gradient``: the distances of ``sources.classes``, summed."""
        learner, rows = sources.classifier(), sources.siamese()
        names = matched_parameters(learner.network, self.matched, self.metric)
        most = min(self.batch_real, sources.largest_class)
        total = torch.zeros((), device=synthetic.images.device, dtype=synthetic.images.dtype)
        # Split, not indexed class by class, whose backward would write zeros for all the others each time.
        fake = synthetic.of(sources.classes).split(synthetic.decoded_of(sources.classes))
        for position, label in enumerate(sources.classes.tolist()):
            row = rows[position : position + 1]
            real = sources.real_of(label, self.batch_real, row)
            labels = torch.full((len(real),), label, device=real.device)
            theirs = learner.gradient(real, labels, names, most=most)
            matched = synthetic.batch(self._subset(fake[position], sources, label))
            images = sources.augmentation(matched, row[torch.zeros(len(matched), dtype=torch.int64)])
            targets = torch.full((len(images),), label, device=images.device)
            ours = learner.gradient(images.detach(), targets, names, exact=True)
            distance, grads = distance_and_grad(self.metric, ours, theirs)
            grad = learner.image_grad(images, targets, dict(zip(names, grads, strict=True)))
            total = total + attach_gradients(distance, (images, grad))
        return {"gradient": total}

    def _subset(self, images: Tensor, sources: Sources[Supply], label: int) -> Tensor:
        """Draw at most ``batch_synthetic`` of a class's images."""
        rows = sources.synthetic_positions(label, len(images), self.batch_synthetic)
        return images if rows is None else images[rows.to(images.device)]

    def cost(self, sizes: Sizes) -> Cost:
        """Count one class's dual pass, and a pass of real images, of the synthetic ones or of training.

        Images differentiated once count three passes, synthetic ones, of second order, eight. The weights are
        both gradients and the derivative of their distance.
        """
        sizes = dataclasses.replace(sizes, most_matched=self.batch_synthetic)
        matched, largest = int(sizes.matched.sum()), int(sizes.matched.max())
        trained = self.supply.training_images(sizes)
        real = min(self.batch_real, int(sizes.counts.max()))
        cost = Cost(
            passes=3 * (sizes.real(self.batch_real) + trained) + 8 * matched,
            training=max(min(sizes.chunk, max(largest, real)), self.supply.training_graph(sizes)),
            dual=largest,
            images=IMAGE_COPIES * largest,
            real_per_class=self.batch_real,
            real_at_once=real,
            weights=3,
        )
        return self.real_batches.added_to(cost, sizes, self.supply)
