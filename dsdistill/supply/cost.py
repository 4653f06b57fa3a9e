"""What an iteration takes: images through networks, those of a pass at once, copies of weights, features."""

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
    size: int = 0
    """Height and width of an image."""
    device: str = "cpu"
    """The kind of the device that computes."""
    copies: int = 1
    """2 where mirror images are matched beside them."""
    classes: int = 1
    """Classes whose graphs are held at once."""
    chunk: int = 1
    """Images in one pass where only a gradient to the weights is computed."""
    parted: bool = False
    """Whether such networks are trained part by part where a population is (`compute.recomputed`)."""
    feature_dim: int = 0
    """Values that are compared of one image."""
    most_matched: int = 0
    """Decoded images of a class that are matched at once; 0 for all."""
    compensators: int = 0
    """Images that are learned, and added to those of all classes; decoded ones are then made pass by pass."""

    @property
    def total(self) -> int:
        """Synthetic images of all classes, decoded."""
        return int(self.decoded.sum())

    @property
    def matched(self) -> Tensor:
        """int64 [K], synthetic images of each class that an iteration matches, with their mirror images."""
        most = self.most_matched or int(self.decoded.max())
        return self.copies * self.decoded.clamp(max=most)

    @property
    def held(self) -> int:
        """Images that are matched, of the largest classes whose graphs are held at once."""
        return int(self.matched.sort(descending=True).values[: self.classes].sum())

    def real(self, per_class: int) -> int:
        """Return the real images of all classes, at most ``per_class`` of each."""
        return int(self.counts.clamp(max=per_class).sum())


@dataclass(frozen=True, kw_only=True)
class Cost:
    """An estimate of what one iteration takes."""

    passes: int
    """Images through a network; one that is differentiated counts three, one of second order eight."""
    pixels: int = 0
    """Images in one pass whose features are differentiated to the pixels."""
    training: int = 0
    """Images in one pass whose loss is differentiated to the weights."""
    dual: int = 0
    """Images in one pass of second order, that of dual numbers."""
    dual_to_weights: bool = False
    """Whether that pass is differentiated to the weights too."""
    real_per_class: int = 0
    """Real images of a class, where there are so many."""
    images: int = 0
    """Synthetic images that are augmented together, times the copies of them that are alive."""
    real_at_once: int = 0
    """Real images drawn together: of all classes whose graphs are held at once."""
    beside_graph: bool = True
    """Whether they are embedded while the graph of synthetic images waits."""
    clustered: int = 0
    """Real images of a class whose features are clustered together."""
    features: int = 0
    """Values that comparing features takes, besides the maps."""
    kept: int = 0
    """Values that are kept of one draw of real images, of all classes, where they are computed once for each
    draw (`RealCache`); 0 if that is not possible."""
    weights: int = 0
    """Copies of a network's parameters, besides those of its supply and of one gradient."""
