"""What the distribution engine can compare of real and synthetic features: each with options of its own."""

from __future__ import annotations

import functools
from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar, assert_never

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill import seeding
from dsdistill.augment.dsa import Parameters
from dsdistill.compute.config import OptimiserConfig
from dsdistill.compute.custom_gradient import attach_gradients
from dsdistill.config.kinds import Kinds
from dsdistill.config.validation import forbid_extra
from dsdistill.engines.sources import ClassFeatures, Sources
from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.objectives.characteristic import (
    CHUNK,
    CharacteristicFunction,
    characteristic,
    discrepancy,
    normalise,
)
from dsdistill.objectives.distributions import mean_discrepancy
from dsdistill.objectives.kernels import Gaussian, Kernel, Linear, Polynomial, squared_mmd_by_class
from dsdistill.supply.base import Supply
from dsdistill.supply.cost import Sizes
from dsdistill.synthetic.adversary import FrequencySampler, reversed_gradient
from dsdistill.synthetic.set import SyntheticSet

# Tensors alive at once, of these sizes:
_KERNEL_PAIRS = 3  # distances between all real features of a class, on the way to their median
_PHASES = 3  # of a chunk: the products, and their cosine or sine
_LEARNED = 7  # frequencies: noise, the adversary's layers, and their gradients


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Discrepancy(ABC):
    """A distance between the features of real and synthetic images, class by class: what a method compares.

    One of your own is a frozen dataclass with a ``kind``, its options, and a ``distance``;
    `register_discrepancy` adds it to the option ``engine.discrepancy``. Options are checked by their types:
    bounds are those of ``annotated_types``.

    >>> from dataclasses import dataclass
    >>> from typing import Literal
    >>> @dsdistill.register_discrepancy
    ... @dataclass(frozen=True, kw_only=True)
    ... class Spread(dsdistill.Discrepancy):
    ...     kind: Literal["spread"] = "spread"
    ...     weight: float = 1.0
    ...
    ...     def distance(self, real, fake):
    ...         pairs = zip(real, fake, strict=True)
    ...         return self.weight * sum((r.std() - f.std()) ** 2 for r, f in pairs)
    >>> options = {"engine": {"discrepancy": {"kind": "spread", "weight": 2.0}}, "ipc": 2, "iterations": 3}
    >>> dsdistill.distill("spread.h5", dataset="digits", options=options).images
    20
    """

    kind: str
    """Its name; a ``Literal`` of one text, with that text as default."""

    @property
    def adversary_optimiser(self) -> OptimiserConfig:
        """The optimiser of what is learned besides the images."""
        return OptimiserConfig()

    def prepare(  # noqa: B027 - most learn nothing
        self, synthetic: SyntheticSet, network: Network, seed: int
    ) -> None:
        """Register what is learned besides the images."""

    def values(self, sizes: Sizes, batch: int) -> int:
        """Count the values that `term` holds at once, besides maps, of ``batch`` real images of a class.

        By default the real features twice, as they are joined.
        """
        return 2 * sizes.classes * batch * sizes.feature_dim

    def kept(self, sizes: Sizes, batch: int) -> int:
        """Count the values that are kept of a draw of real images where they are cached; 0 if they cannot be.

        By default all features of at most ``batch`` images of each class; none where `term` is another's,
        which may compute what it likes of them.
        """
        own = type(self).term is not Discrepancy.term
        return 0 if own else sizes.real(batch) * sizes.feature_dim

    def distance(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        """Return the distances of some classes, summed.

        Args:
            real: features [n, D] of real images of each class, float32, without a graph.
            fake: features [m, D] of the synthetic images of each class, with a graph to the images.

        Returns:
            a scalar with a graph to ``fake``.
        """
        raise NotImplementedError

    def term(
        self,
        synthetic: SyntheticSet,
        fake: ClassFeatures,
        sources: Sources[Supply],
        batch_real: int,
        rows: Parameters,
    ) -> Tensor:
        """Return the distances of ``sources.classes``, summed: `distance`, of features that are drawn here.

        Args:
            synthetic: whatever is learned.
            fake: features of its images, with a graph.
            sources: where real features come from.
            batch_real: real images of a class.
            rows: the augmentation of each class.

        Raises:
            UserError: `distance` returned something else.
        """
        features = sources.once("features", lambda: sources.real_features(batch_real, rows))
        real = features.split(sources.counts(batch_real).tolist())
        distance = self.distance(real, fake.by_class())
        if not isinstance(distance, Tensor) or distance.ndim or not distance.requires_grad:
            raise UserError(
                f"the distance of the discrepancy {self.kind!r} is no scalar with a graph to the synthetic "
                "images: return a sum, or a mean, of what depends on fake"
            )
        return distance


@dataclass(frozen=True, kw_only=True)
class Means(Discrepancy):
    """The squared distance of mean features (DM)."""

    kind: Literal["mean"] = "mean"

    def term(
        self,
        synthetic: SyntheticSet,
        fake: ClassFeatures,
        sources: Sources[Supply],
        batch_real: int,
        rows: Parameters,
    ) -> Tensor:
        """Return ‖ mean real - mean synthetic ‖², summed over classes."""
        return mean_discrepancy(sources.real_means(batch_real, rows), fake.means())

    def values(self, sizes: Sizes, batch: int) -> int:
        """Return 0: the means are summed up as features come."""
        return 0

    def kept(self, sizes: Sizes, batch: int) -> int:
        """Count the mean of each class."""
        return len(sizes.counts) * sizes.feature_dim


@dataclass(frozen=True, kw_only=True)
class Kernels(Discrepancy):
    """The squared maximum mean discrepancy through a kernel (M3D)."""

    kind: Literal["mmd"] = "mmd"
    kernel: Literal["linear", "polynomial", "gaussian"] = "gaussian"
    """A linear one makes it the distance of means."""
    bandwidth: Annotated[float, Ge(0)] = 0.0
    """s of the Gaussian kernel; 0 takes the median distance between the real features of each class. The
    discrepancy is multiplied by s², so that the learning rates of DM hold."""
    degree: Annotated[int, Ge(1)] = 3
    """Of the polynomial kernel (x·y / D + 1)^degree."""

    def distance(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        """Return the squared maximum mean discrepancies of the classes, summed."""
        return squared_mmd_by_class(real, fake, self._kernel()).sum()

    def values(self, sizes: Sizes, batch: int) -> int:
        """Count the real features twice, as they are joined, or beside the pairs of one class."""
        features = sizes.classes * batch * sizes.feature_dim
        return features + max(features, _KERNEL_PAIRS * batch**2)

    def _kernel(self) -> Kernel:
        match self.kernel:
            case "linear":
                return Linear()
            case "polynomial":
                return Polynomial(degree=self.degree)
            case "gaussian":
                return Gaussian(bandwidth=self.bandwidth or None, scaled=True)
            case _:
                assert_never(self.kernel)


@dataclass(frozen=True, kw_only=True)
class Characteristic(Discrepancy):
    """The neural characteristic function discrepancy of features of unit length (NCFM)."""

    kind: Literal["characteristic"] = "characteristic"
    frequencies: Annotated[int, Ge(1)] = 4096
    """Drawn anew for every class and iteration."""
    alpha: Annotated[float, Ge(0)] = 0.5
    """Weight of the amplitudes."""
    beta: Annotated[float, Ge(0)] = 0.5
    """Weight of the phases."""
    scale: Annotated[float, Ge(0)] = 300.0
    """Factor of the whole, as in the released code."""
    sampler: Literal["gaussian", "learned"] = "gaussian"
    """Frequencies are N(0, I), as in every released configuration; or an adversary learns where the
    characteristic functions differ most (the paper's minmax)."""
    sampler_lr: Annotated[float, Ge(0)] = 1e-3
    """Of the adversary's AdamW."""
    sampler_reach: Annotated[float, Ge(0)] = 2.0
    """How far the adversary may move a frequency from where it was drawn; the spread of what frequencies read
    of a feature is 1 before."""

    @property
    def adversary_optimiser(self) -> OptimiserConfig:
        """Return the optimiser of the adversary, whose gradient arrives reversed.

        The gradient grows with classes, ``scale`` and features; AdamW's steps do not. Its average is short,
        as is usual for adversaries (Radford et al., ICLR 2016): every iteration brings another network.
        """
        return OptimiserConfig(kind="adamw", lr=self.sampler_lr, betas=(0.5, 0.999))

    def prepare(self, synthetic: SyntheticSet, network: Network, seed: int) -> None:
        """Register the adversary where there is one."""
        if self.sampler == "learned":
            with seeding.forked(seed, "sampler"):
                synthetic.adversary = FrequencySampler(network.feature_dim, reach=self.sampler_reach)

    def term(
        self,
        synthetic: SyntheticSet,
        fake: ClassFeatures,
        sources: Sources[Supply],
        batch_real: int,
        rows: Parameters,
    ) -> Tensor:
        """Return the discrepancies of the classes, summed and scaled.

        Each class is differentiated before the next one draws: the F·D frequencies of a hundred classes,
        kept for the gradient, would be gigabytes. Of a draw of real images that is cached, Gaussian
        frequencies are part: its characteristic functions are kept. Learned ones move, so that features are.
        """

        def unit_features() -> Tensor:
            return normalise(sources.real_features(batch_real, rows))

        @functools.cache
        def real() -> tuple[Tensor, ...]:
            learned = synthetic.adversary is not None
            features = sources.once("unit features", unit_features) if learned else unit_features()
            return features.split(sources.counts(batch_real).tolist())

        unit = normalise(fake.rows)
        adversary = [] if synthetic.adversary is None else list(synthetic.adversary.parameters())
        total, unit_grads = unit.new_zeros(()), []
        adversary_grads = [torch.zeros_like(parameter) for parameter in adversary]
        for position, synthetic_features in enumerate(unit.detach().split(fake.counts)):
            with torch.enable_grad():
                synthetic_features.requires_grad_()
                draw = functools.partial(self._points, synthetic, sources, position, synthetic_features)
                points = functools.cache(draw)
                at_real = self._at_real(sources, real, position, points)
                at_synthetic = characteristic(synthetic_features, points())
                distance = discrepancy(at_real, at_synthetic, self.alpha, self.beta)
            grad, *further = torch.autograd.grad(distance, [synthetic_features, *adversary])
            unit_grads.append(grad)
            adversary_grads = [grads + more for grads, more in zip(adversary_grads, further, strict=True)]
            total += distance.detach()
        pairs = [(unit, torch.cat(unit_grads)), *zip(adversary, adversary_grads, strict=True)]
        return self.scale * attach_gradients(total, *pairs)

    def values(self, sizes: Sizes, batch: int) -> int:
        """Count the real features twice, as they are joined or normalised, or beside the phases of one class.

        An adversary's frequencies have a graph of as many values again, for each of its layers.
        """
        features = sizes.classes * batch * sizes.feature_dim
        frequencies = self.frequencies * sizes.feature_dim
        phases = _PHASES * min(CHUNK, batch) * self.frequencies
        of_class = (_LEARNED if self.sampler == "learned" else 1) * frequencies + phases
        return features + max(features, of_class)

    def kept(self, sizes: Sizes, batch: int) -> int:
        """Count real and imaginary parts at all frequencies; or features, where frequencies are learned."""
        if self.sampler == "learned":
            return sizes.real(batch) * sizes.feature_dim
        return 2 * len(sizes.counts) * self.frequencies

    def _at_real(
        self,
        sources: Sources[Supply],
        real: Callable[[], Sequence[Tensor]],
        position: int,
        points: Callable[[], Tensor],
    ) -> CharacteristicFunction:
        """Return the characteristic function of the real images of one of ``sources.classes``."""

        def compute() -> CharacteristicFunction:
            features = real()[position]  # before there are frequencies, which take memory
            return characteristic(features, points())

        if self.sampler == "learned":
            return compute()
        return sources.once(("characteristic function", position), compute)

    def _points(
        self, synthetic: SyntheticSet, sources: Sources[Supply], position: int, like: Tensor
    ) -> Tensor:
        """Draw the frequencies [F, D] of one of ``sources.classes``, on its features' device."""
        number = sources.iteration if self.sampler == "learned" else sources.draw_number
        label = int(sources.classes[position])
        stream = seeding.generator(sources.seed, "frequencies", number, label, device=like.device)
        noise = torch.randn(
            self.frequencies, like.shape[1], generator=stream, device=like.device, dtype=like.dtype
        )
        adversary = synthetic.adversary
        return noise if adversary is None else reversed_gradient(adversary.draw(noise))


DISCREPANCIES = Kinds(
    "discrepancy",
    "dsdistill.discrepancies",
    Discrepancy,
    (Means, Kernels, Characteristic),
    "register_discrepancy",
)
"""What the option ``engine.discrepancy`` of the distribution engine may be."""

D = TypeVar("D", bound=type[Discrepancy])


def register_discrepancy(discrepancy: D) -> D:
    """Add a discrepancy of your own to the distribution engine: a decorator, above ``@dataclass``.

    An installed package adds one by an entry point of the group ``dsdistill.discrepancies``, named as its
    kind. See `Discrepancy` for an example that distils.

    >>> from dataclasses import dataclass
    >>> from typing import Literal
    >>> @dsdistill.register_discrepancy
    ... @dataclass(frozen=True, kw_only=True)
    ... class Largest(dsdistill.Discrepancy):
    ...     kind: Literal["largest"] = "largest"
    ...
    ...     def distance(self, real, fake):
    ...         return sum((r.amax(0) - f.amax(0)).norm() for r, f in zip(real, fake, strict=True))
    >>> Largest().kind
    'largest'

    Args:
        discrepancy: a frozen dataclass derived from `Discrepancy`, with a ``kind`` of its own.

    Returns:
        the class, as it is.

    Raises:
        UserError: it is no such class, it defines neither ``distance`` nor ``term``, an option has a type
            that TOML cannot hold, or its kind is taken.
    """
    if discrepancy.distance is Discrepancy.distance and discrepancy.term is Discrepancy.term:
        raise UserError(f"discrepancy {discrepancy.__name__} lacks the method distance")
    return DISCREPANCIES.register(discrepancy)
