"""What an iteration takes: images through networks, maps held for gradients, copies of weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Sizes:
    """The sizes of an iteration, from which its cost is estimated."""

    counts: Tensor
    """int64 [K], real images of each class."""
    decoded: Tensor
    """int64 [K], synthetic images of each class, decoded."""
    copies: int = 1
    """2 where mirror images are matched beside them."""
    classes: int = 1
    """Classes whose graphs are held at once."""
    chunk: int = 1
    """Images in one pass where only a gradient to the weights is computed."""
    value_bytes: int = 4
    """Bytes of a value in the run's precision."""

    @property
    def total(self) -> int:
        """Synthetic images of all classes, decoded."""
        return int(self.decoded.sum())

    @property
    def held(self) -> int:
        """Synthetic images, decoded, of the largest classes whose graphs are held at once."""
        return int(self.decoded.sort(descending=True).values[: self.classes].sum())

    def real(self, per_class: int) -> int:
        """Return the real images of all classes, at most ``per_class`` of each."""
        return int(self.counts.clamp(max=per_class).sum())


@dataclass(frozen=True, kw_only=True)
class Cost:
    """An estimate of what one iteration takes."""

    passes: int
    """Images through a network; one that is differentiated counts three, one of second order eight."""
    graph: int
    """Images whose maps are held for a gradient at once, times the bytes of a value."""
    real_per_class: int = 0
    """Real images of a class, where there are so many."""
    coupled_batch: int = 0
    """Real images in one pass through a network that couples the samples of a batch."""
    weights: int = 0
    """Copies of a network's parameters, besides those of its supply."""
