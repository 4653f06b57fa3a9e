"""Matching engines: what is matched between real and synthetic images, one file each."""

from __future__ import annotations

from dsdistill.engines.attention import AttentionEngine
from dsdistill.engines.base import Engine
from dsdistill.engines.distribution import DistributionEngine
from dsdistill.engines.gradient import GradientEngine
from dsdistill.engines.trajectory import TrajectoryEngine

ENGINES: dict[str, type[Engine]] = {
    "attention": AttentionEngine,
    "distribution": DistributionEngine,
    "gradient": GradientEngine,
    "trajectory": TrajectoryEngine,
}
"""The ``kind`` a recipe names -> the engine's class."""

__all__ = [
    "ENGINES",
    "AttentionEngine",
    "DistributionEngine",
    "Engine",
    "GradientEngine",
    "TrajectoryEngine",
]
