"""Self-supervised training: two views of each image, and the loss of Barlow Twins behind a projector.

The projector is trained with the network and thrown away. What a network has learned is measured by a linear
probe of its features, which takes the place of its classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dsdistill.compute.probe import joined, linear_probe
from dsdistill.errors import UserError
from dsdistill.experts.config import ExpertConfig
from dsdistill.experts.images import NetworkImages
from dsdistill.experts.objective import TrainingBatch
from dsdistill.networks.base import Network
from dsdistill.objectives.precision import at_least_float32
from dsdistill.objectives.twins import barlow_twins
from dsdistill.runtime import compiler
from dsdistill.runtime.device import Precision, autocast
from dsdistill.runtime.notice import Notify


def projector(features: int, widths: Sequence[int]) -> nn.Sequential:
    """Make the layers behind the features: linear, batch normalisation and ReLU, and a linear one at last."""
    layers: list[nn.Module] = []
    *hidden, last = pairwise((features, *widths))
    for before, after in hidden:
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(*last, bias=False))


class Twins(nn.Module):
    """A network and the projector behind its features: what is trained."""

    def __init__(self, network: Network, widths: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.projector = projector(network.feature_dim, widths)

    def forward(self, images: Tensor) -> Tensor:
        """Return the projections of images [B, C, H, W], [B, D]."""
        return self.projector(self.network.embed(images))


class TwinsObjective:
    """The loss of Barlow Twins over a batch of two views of each image, and its gradient."""

    def __init__(
        self,
        twins: Twins,
        config: ExpertConfig,
        device: torch.device,
        precision: Precision,
        compile: bool,
        notify: Notify,
    ) -> None:
        """Prepare; the arguments are those of a `Learner`."""

        def loss(images: Tensor) -> Tensor:
            with autocast(device, precision):
                first, second = (twins(view) for view in images.chunk(2))  # each normalised by its own batch
            pair = at_least_float32(first), at_least_float32(second)
            return barlow_twins(*pair, config.twins.off_diagonal)

        self._loss = compiler.compile_or_eager(loss, device, notify) if compile else loss

    def backward(
        self, batch: TrainingBatch, epoch: int, observe: Callable[[Tensor], None] | None = None
    ) -> Tensor:
        """Set the ``grad`` of every parameter but the classifier's, empty before; return the loss, a scalar.

        Args:
            batch: whose images are the first views [B, C, H, W] and then the second ones, in the same order.
        """
        loss = self._loss(batch.images)
        loss.backward()
        return loss.detach()


def linear_classifier(network: Network) -> nn.Linear:
    """Return a network's classifier, whose place a linear probe can take.

    Raises:
        UserError: it is not linear.
    """
    if not isinstance(network.classifier, nn.Linear):
        raise UserError("a linear probe takes the place of a linear classifier, and this network has another")
    return network.classifier


@torch.no_grad()
def fit_classifier(network: Network, images: NetworkImages, classes: int) -> None:
    """Make a network's classifier the linear probe of its features of some images, in eval mode.

    Raises:
        UserError: as `linear_classifier`.
    """
    classifier = linear_classifier(network)
    network.eval()
    parts = (network.embed(images.images(rows)).float() for rows in images.chunks())
    weight, bias = linear_probe(joined(parts, len(images)), images.labels, classes, overwrite=True)
    classifier.weight.copy_(weight)
    classifier.bias.copy_(bias)
