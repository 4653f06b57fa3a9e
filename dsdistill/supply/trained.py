"""One network that is trained between the steps of the pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from dsdistill.compute.learner import Learner
from dsdistill.compute.optimiser import restore, state_of
from dsdistill.compute.sgd import sgd
from dsdistill.config.validation import forbid_extra
from dsdistill.supply.base import DrawnNetwork, NetworkConfig, NetworkRequest, bytes_of, normalise_by_batch
from dsdistill.supply.batches import LabelledBatch, TrainingBatches
from dsdistill.supply.cost import Sizes
from dsdistill.supply.fresh import Fresh


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class TrainingConfig(NetworkConfig):
    """How a network is trained between the steps of the pixels that are matched with it.

    The run's augmentation is applied with parameters of its own for every image, without cutout where CutMix
    is on.
    """

    on: Literal["synthetic", "real"] = "synthetic"
    """What it is trained on: the images being distilled (DC, DSA), or the real ones (IDC)."""
    updates_per_network: Annotated[int, Ge(1)] = 1
    """Steps of the pixels before a new network is drawn ("outer loop" in DC, "inner loop" in IDC, where
    optimiser.clamp_every is the same number)."""
    epochs: Annotated[int, Ge(0)] = 1
    """Passes over the synthetic set after each step of the pixels ("inner loop" in DC)."""
    samples: Annotated[int, Ge(0)] = 0
    """Real images after each step of the pixels, rounded up to whole batches ("n_data" in IDC)."""
    warm_up: Annotated[int, Ge(0)] = 0
    """Epochs of real data a new network is trained for before it is matched with ("early" in IDC)."""
    lr: Annotated[float, Ge(0)] = 0.01
    """Learning rate of the networks."""
    momentum: Annotated[float, Ge(0)] = 0.0
    """Of their training."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Of their training."""
    batch_size: Annotated[int, Ge(1)] = 256
    """Images of one of their steps."""
    cutmix: Annotated[float, Ge(0), Le(1)] = 0.0
    """Probability that a batch is mixed."""
    batch_norm: Literal["refreshed", "batch"] = "refreshed"
    """Batch normalisation while matching: statistics refreshed by 16 real images a class and then fixed (DC,
    DSA), or those of the batch at hand, one class's (IDC)."""

    @property
    def iterations_per_network(self) -> int:
        """Return ``updates_per_network``."""
        return self.updates_per_network

    @property
    def batch_statistics(self) -> bool:
        """Whether ``batch_norm`` says so."""
        return self.batch_norm == "batch"

    def training_images(self, sizes: Sizes) -> int:
        """Count the epochs over the synthetic set, or the real images."""
        return sizes.copies * self.epochs * sizes.total if self.on == "synthetic" else self.samples

    def training_graph(self, sizes: Sizes) -> int:
        """Count a batch."""
        if self.on == "synthetic":
            return sizes.copies * min(self.batch_size, sizes.total)
        return min(self.batch_size, self.samples)


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class TrainedConfig(TrainingConfig):
    """A random network that is trained between the steps of the pixels matched with it (DC, DSA, IDC)."""

    kind: Literal["trained"] = "trained"

    def build(self, request: NetworkRequest) -> Trained:
        """Return the supply."""
        return Trained(request, self)


class Trained(Fresh):
    """One network that is trained between steps of the pixels and drawn anew every so many (DC, DSA, IDC)."""

    def __init__(self, request: NetworkRequest, config: TrainingConfig) -> None:
        super().__init__(request)
        self.config = config
        self._optimiser = sgd(self.network, config)

    def network_bytes(self, iterations: int) -> int:
        """Count the network and its momentum."""
        momentum = bytes_of(dict(self.network.named_parameters())) if self.config.momentum else 0
        return super().network_bytes(iterations) + momentum

    def draw(self, iteration: int, batches: TrainingBatches) -> DrawnNetwork:
        """Re-initialise the network and forget its momentum where its time is up, else keep both."""
        number, age = divmod(iteration, self.config.updates_per_network)
        if age == 0:
            self._optimiser = sgd(self.network, self.config)
            self.initialise(number)
            if self.config.warm_up:
                self._train(batches.learner, self._warm_up(number, batches))
        if self.network.has_batch_norm and self.config.batch_norm == "refreshed":
            self._refresh_statistics(batches.statistics_batch(iteration))
        return DrawnNetwork()

    def advance(self, iteration: int, batches: TrainingBatches) -> None:
        """Train the network, unless a new one is due."""
        if (iteration + 1) % self.config.updates_per_network:
            self._train(batches.learner, self.batches(iteration, batches))

    def batches(self, iteration: int, batches: TrainingBatches) -> Iterable[LabelledBatch]:
        """Return what the network is trained on after an iteration."""
        config = self.config
        if config.on == "synthetic":
            return batches.synthetic_epochs(iteration, config.epochs, config.batch_size, config.cutmix)
        count = -(-config.samples // config.batch_size)
        return batches.real_stream("inner", iteration * count, count, config.batch_size, config.cutmix)

    def _warm_up(self, number: int, batches: TrainingBatches) -> Iterable[LabelledBatch]:
        """Return epochs of real batches, a stream of their own for each network."""
        config = self.config
        count = config.warm_up * max(1, len(batches.real.data) // config.batch_size)
        return batches.real_stream("warm-up", number * count, count, config.batch_size, config.cutmix)

    def _train(self, learner: Learner, batches: Iterable[LabelledBatch]) -> None:
        """Take one step of SGD per batch. Dropout stays off: it would draw from the global generator."""
        self.network.requires_grad_(True)
        normalise_by_batch(self.network, True)
        for images, targets in batches:
            learner.loss(images, targets).backward()
            self._optimiser.step()
            self._optimiser.zero_grad()
        self.network.requires_grad_(False)

    def _refresh_statistics(self, images: Tensor) -> None:
        """Let batch normalisation see images [B, C, H, W] once, then keep its statistics."""
        normalise_by_batch(self.network, True)
        with torch.no_grad():
            self.network(images)
        normalise_by_batch(self.network, False)

    def state_dict(self) -> dict[str, Tensor]:
        """Return weights and momentum."""
        return state_of(self.network, self._optimiser)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a state returned by `state_dict`."""
        self._optimiser = sgd(self.network, self.config)
        restore(self.network, self._optimiser, state)
