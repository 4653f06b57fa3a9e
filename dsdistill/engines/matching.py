"""What engines have in common that compare real and synthetic images in a network, iteration by iteration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from dsdistill.engines.base import Engine, feature_cost
from dsdistill.supply import FreshConfig, SupplyConfig
from dsdistill.supply.base import NetworkRequest, Supply
from dsdistill.supply.cost import Cost, Sizes


@dataclass(frozen=True, kw_only=True)
class MatchingEngine(Engine[Supply]):
    """An objective that compares real and synthetic images in a network of any supply.

    One of your own is a frozen dataclass with a ``kind``, its options, and a ``loss``; `register_engine` adds
    it to the option ``engine``. This one moves the mean of each class's features, as the method DM does:

    >>> from dataclasses import dataclass
    >>> from typing import Literal
    >>> @dsdistill.register_engine
    ... @dataclass(frozen=True, kw_only=True)
    ... class Nearer(dsdistill.MatchingEngine):
    ...     kind: Literal["nearer"] = "nearer"
    ...     power: float = 2.0
    ...
    ...     def loss(self, synthetic, sources):
    ...         rows = sources.siamese()
    ...         real = sources.real_means(self.batch_real, rows)
    ...         fake = sources.synthetic_features(synthetic, rows).means()
    ...         return {"nearer": (real - fake).abs().pow(self.power).sum()}
    >>> options = {"engine": {"kind": "nearer", "power": 1.5}, "ipc": 1, "iterations": 3}
    >>> dsdistill.distill("nearer.h5", dataset="digits", method="dm", options=options).images
    10
    """

    batch_real: Annotated[int, Ge(1)] = 256
    """Real images per class and iteration; a smaller class gives all it has."""
    supply: SupplyConfig = field(default_factory=FreshConfig)
    """Where networks come from: fresh ones, one in training, a queue of them, or a file of experts."""

    def build_networks(self, request: NetworkRequest) -> Supply:
        """Build the supply.

        Raises:
            UserError: its experts do not fit.
        """
        return self.supply.build(request)

    def cost(self, sizes: Sizes) -> Cost:
        """Count one pass of features."""
        return feature_cost(sizes, self.supply, self.batch_real)
