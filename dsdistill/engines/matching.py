"""What engines have in common that compare real and synthetic images in a network, iteration by iteration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor

from dsdistill.data.batches import RealBatches
from dsdistill.data.real import RealDataset
from dsdistill.engines.base import Engine, feature_cost
from dsdistill.engines.clusters import Clusters, RealBatchesConfig
from dsdistill.engines.sources import Sources
from dsdistill.objectives.distributions import mean_discrepancy
from dsdistill.supply import FreshConfig, SupplyConfig
from dsdistill.supply.base import NetworkRequest, Supply
from dsdistill.supply.cost import Cost, Sizes
from dsdistill.synthetic.set import SyntheticSet


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

    matches_prefixes: ClassVar[bool] = True

    batch_real: Annotated[int, Ge(1)] = 256
    """Real images per class and iteration; a smaller class gives all it has."""
    supply: SupplyConfig = field(default_factory=FreshConfig)
    """Where networks come from: fresh ones, one in training, a queue of them, or a file of experts."""
    real_batches: RealBatchesConfig = field(default_factory=RealBatchesConfig)
    """Which real images of a class are compared with: random ones, or those near the centres of clusters."""

    def build_networks(self, request: NetworkRequest) -> Supply:
        """Build the supply.

        Raises:
            UserError: its experts do not fit.
        """
        return self.supply.build(request)

    def check_data(self, real: RealDataset) -> None:
        """Check that classes can be clustered, if they are to be.

        Raises:
            UserError: they cannot.
        """
        self.real_batches.check(real, self.batch_real)

    def clusters(self, batches: RealBatches) -> Clusters | None:
        """Return what ``real_batches`` describes."""
        return self.real_batches.build(batches, self.supply)

    def feature_distance(self, synthetic: SyntheticSet, sources: Sources[Supply]) -> Tensor:
        """Return the squared distances between the mean features of ``sources.classes``, summed."""
        rows = sources.siamese()
        real = sources.real_means(self.batch_real, rows)
        return mean_discrepancy(real, sources.synthetic_features(synthetic, rows).means())

    def cost(self, sizes: Sizes) -> Cost:
        """Count one pass of features."""
        cost = feature_cost(sizes, self.supply, self.batch_real)
        return self.real_batches.added_to(cost, sizes, self.supply)
