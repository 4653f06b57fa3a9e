"""Kernel regression: move synthetic images until a regression on them in closed form predicts real ones.

FRePo (Zhou, Nezhadarya & Ba, *Dataset Distillation using Neural Feature Regression*, NeurIPS 2022): with the
features Φs of the synthetic images and Φt of real ones, in a network of a population that is in training on
the synthetic set, and learned labels Ys,

    L = (1 / 2B) ‖Φt W - Yt‖² + separation(Ys),    W = Φsᵀ (Φs Φsᵀ + λ I)⁻¹ Ys.

So the last layer is solved, and the network below it stays as it is. KRR-ST (Lee et al., *Self-Supervised
Dataset Distillation for Transfer Learning*, ICLR 2024) has features of a teacher for Yt and learned vectors
for Ys, and needs no labels.

The loss reads real images through W alone. They come in parts: of each, its error and the gradient to W are
added up, so that neither the features of all real images nor the kernel between real and synthetic images
are ever there. Synthetic images go through the network once without a graph, and once more, part by part,
on the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from dsdistill.compute.chunks import equal_chunk
from dsdistill.compute.custom_gradient import attach_gradients
from dsdistill.compute.recomputed import features_of
from dsdistill.config.validation import forbid_extra
from dsdistill.engines.base import IMAGE_COPIES, Engine
from dsdistill.engines.sources import PASSES_TOGETHER, Sources
from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.objectives.regression import centred_one_hot, ridge, ridge_weights, separation
from dsdistill.supply import PopulationConfig, RegressionSupplyConfig
from dsdistill.supply.base import NetworkRequest, Supply
from dsdistill.supply.cost import Cost, Sizes
from dsdistill.supply.population import RegressionLoss
from dsdistill.synthetic.set import SyntheticSet

_DTYPES = {"fp64": torch.float64, "fp32": torch.float32}


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class RidgeConfig:
    """λ of the regression, a share of the trace of the kernel of the synthetic images."""

    strength: Annotated[float, Gt(0)] = 1e-6
    """λ divided by the trace, or by its mean."""
    of: Literal["mean", "sum"] = "mean"
    """mean: of the trace divided by the number of images (FRePo). sum: of the trace (KRR-ST), so that λ is
    larger, relative to the kernel, the more images there are."""
    constant: bool = False
    """Whether λ counts as a constant in the gradient (KRR-ST)."""


@dataclass(frozen=True, kw_only=True)
class KernelEngine(Engine[Supply]):
    """Predict real images by kernel ridge regression on the synthetic ones.

    The run's augmentation is of real images alone, drawn for each. Labels or, with a teacher, targets are
    learned beside the pixels, by the same optimiser.
    """

    class_by_class: ClassVar[bool] = False

    kind: Literal["kernel"] = "kernel"
    batch_real: Annotated[int, Ge(1)] = 1024
    """Real images of an iteration, whatever their classes; all there are, if these are fewer."""
    supply: RegressionSupplyConfig = field(default_factory=PopulationConfig)
    """Where networks come from: a population in training on what is learned, or any other supply. With
    taught, real images have a teacher's features in place of labels."""
    loss_of: RegressionLoss = "sse"
    """What is predicted wrongly. sse: half the squared error of an image, summed over its label (FRePo).
    mse: its mean (KRR-ST)."""
    separation: Annotated[float, Ge(0)] = 0.0
    """Weight of a term that keeps the two largest entries of a learned label 1 / K apart, of K classes
    (FRePo: 1)."""
    bias: bool = False
    """Add a feature that is 1 for every image (KRR-ST)."""
    ridge: RidgeConfig = field(default_factory=RidgeConfig)
    solver: Literal["fp64", "fp32"] = "fp64"
    """Precision of the kernel and of its decomposition. fp32 adds to the diagonal if rounding prevents the
    decomposition."""

    @property
    def needs_labels(self) -> bool:
        """Whether no teacher takes their place."""
        return self.supply.kind != "taught"

    @property
    def stepped_with_pixels(self) -> frozenset[str]:
        """Labels and targets."""
        return frozenset({"label_logits", "targets"})

    def build_networks(self, request: NetworkRequest) -> Supply:
        """Build the supply.

        Raises:
            UserError: its experts do not fit, or a term is of labels, and a teacher's features are learned.
        """
        supply = self.supply.build(request)
        if supply.target_network is not None and self.separation:
            raise UserError(
                "engine.separation is of labels, and with a teacher none are learned: set "
                "engine.separation=0, or engine.supply.kind=population"
            )
        if self.separation and request.task.num_classes < 2:
            raise UserError("engine.separation compares classes, and there is one alone: set it to 0")
        return supply

    def separable(self, network: Network) -> bool:
        """Return False: one regression is of all images."""
        return False

    def divisible(self, network: Network) -> bool:
        """Whether processes may share the real images: each solves the regression, and predicts some."""
        return not network.couples_samples

    def prepare(self, synthetic: SyntheticSet, sources: Sources[Supply]) -> None:
        """Register what is learned beside the pixels: targets, from the teacher's features on, or labels.

        Labels begin as (one-hot - 1 / K) / √(K / 10), as in FRePo's code.
        """
        teacher = sources.supply.target_network
        if teacher is None:
            classes = len(synthetic.counts)
            labels = centred_one_hot(synthetic.labels, classes, synthetic.images.dtype)
            synthetic.label_logits = nn.Parameter(labels / (classes / 10) ** 0.5)
            return
        with torch.no_grad():
            features = teacher.frozen(synthetic.of(torch.arange(len(synthetic.counts))))
        origins = synthetic.origins().to(features.device)
        sums = features.new_zeros(len(synthetic.images), features.shape[1]).index_add(0, origins, features)
        synthetic.learn_targets(sums / origins.bincount()[:, None], sources.supply.targets_are)

    def loss(self, synthetic: SyntheticSet, sources: Sources[Supply]) -> dict[str, Tensor]:
        """Return the term ``regression`` and, where it has a weight, ``separation``."""
        sources.drawn(synthetic)  # before the network is used: it may be trained on the set
        network = sources.network()
        images = synthetic.batch(synthetic.of(sources.classes))
        features = self._extended(features_of(network, images, sources.learner.chunk_size(len(images))))
        penalty = ridge(
            features, self.ridge.strength, mean=self.ridge.of == "mean", detached=self.ridge.constant
        )
        answers = synthetic.answers().repeat(synthetic.copies, 1)
        weights = ridge_weights(features, answers, penalty, dtype=_DTYPES[self.solver])
        value, gradient = self._errors(weights.detach(), sources)
        terms = {"regression": attach_gradients(value, (weights, gradient))}
        if self.separation:
            assert synthetic.label_logits is not None  # as build_networks sees to it
            weight = self.separation if sources.ranks.is_first else 0.0
            terms["separation"] = weight * separation(synthetic.label_logits)
        return terms

    def _extended(self, features: Tensor) -> Tensor:
        """Return features [n, D], with the column of ones if there is one."""
        return F.pad(features, (0, 1), value=1.0) if self.bias else features

    def _errors(self, weights: Tensor, sources: Sources[Supply]) -> tuple[Tensor, Tensor]:
        """Return the loss over real images, and its gradient to the weights [D, d].

        Several processes share the real images: each has the loss of its own, divided by the number of all.
        """
        network, goal = sources.network(), self._goal(sources)
        total, gradient = weights.new_zeros(()), torch.zeros_like(weights)
        count = min(self.batch_real, len(sources.data))
        for images, labels in sources.of_all_classes(self.batch_real):
            features = self._extended(network.frozen(images))
            error = features @ weights - goal(images, labels)
            total += error.square().sum()
            gradient.addmm_(features.T, error)
        share = 1 / count if self.loss_of == "sse" else 2 / (count * weights.shape[1])
        return total * share / 2, gradient * share

    def _goal(self, sources: Sources[Supply]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the function from real images and labels to what is to be predicted of them, [b, d]."""
        teacher, classes = sources.supply.target_network, sources.task.num_classes
        if teacher is not None:
            return lambda images, _: teacher.frozen(images)
        return lambda images, labels: centred_one_hot(labels, classes, images.dtype)

    def cost(self, sizes: Sizes) -> Cost:
        """Count real images once, twice with a teacher, and synthetic ones once more than a gradient takes.

        Features are those of the synthetic images, their gradient and copies; beside them the weights.
        """
        images, taught = sizes.copies * sizes.total, not self.needs_labels
        real = min(self.batch_real, int(sizes.counts.sum()))
        part = equal_chunk(images, sizes.chunk)
        answers = sizes.feature_dim if taught else len(sizes.counts)
        return Cost(
            passes=(1 + taught) * real
            + (3 + (images > part)) * images
            + 3 * self.supply.training_images(sizes),
            pixels=part,
            images=IMAGE_COPIES * images,
            training=self.supply.training_graph(sizes),
            real_at_once=min(real, PASSES_TOGETHER * sizes.chunk),
            beside_graph=images == part,
            features=_FEATURE_COPIES * images * sizes.feature_dim
            + _WEIGHT_COPIES * sizes.feature_dim * answers
            + _KERNEL_COPIES * min(images, sizes.feature_dim) ** 2,
        )


_FEATURE_COPIES, _WEIGHT_COPIES, _KERNEL_COPIES = 4, 5, 8
"""Of the synthetic features, of the weights and of the kernel, which is in float64 and counts twice."""
