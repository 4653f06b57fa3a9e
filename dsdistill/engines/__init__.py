"""Matching engines: what is matched between real and synthetic images, one file each."""

from dsdistill.engines.attention import AttentionEngine
from dsdistill.engines.base import Engine
from dsdistill.engines.distribution import DistributionEngine
from dsdistill.engines.gradient import GradientEngine
from dsdistill.engines.trajectory import TrajectoryEngine

__all__ = ["AttentionEngine", "DistributionEngine", "Engine", "GradientEngine", "TrajectoryEngine"]
