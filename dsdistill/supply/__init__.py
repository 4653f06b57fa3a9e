"""Where an engine's networks come from: fresh, in training, or trained beforehand."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dsdistill.supply.continued import ContinuedConfig
from dsdistill.supply.fresh import FreshConfig
from dsdistill.supply.pool import PoolConfig
from dsdistill.supply.population import PopulationConfig
from dsdistill.supply.queue import QueueConfig
from dsdistill.supply.snapshots import SnapshotsConfig
from dsdistill.supply.taught import TaughtConfig
from dsdistill.supply.trained import TrainedConfig

SupplyConfig = Annotated[
    FreshConfig | TrainedConfig | ContinuedConfig | QueueConfig | PoolConfig | SnapshotsConfig,
    Field(discriminator="kind"),
]
"""The supplies that every matching engine takes: the option ``engine.supply``, by its ``kind``."""

RegressionSupplyConfig = Annotated[
    PopulationConfig
    | TaughtConfig
    | FreshConfig
    | TrainedConfig
    | ContinuedConfig
    | QueueConfig
    | PoolConfig
    | SnapshotsConfig,
    Field(discriminator="kind"),
]
"""The supplies that the kernel engine takes: these, and those in training on what the set learns."""

__all__ = [
    "ContinuedConfig",
    "FreshConfig",
    "PoolConfig",
    "PopulationConfig",
    "QueueConfig",
    "RegressionSupplyConfig",
    "SnapshotsConfig",
    "SupplyConfig",
    "TaughtConfig",
    "TrainedConfig",
]
