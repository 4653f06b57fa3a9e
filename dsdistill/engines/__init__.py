"""Matching engines: what is matched between real and synthetic images, one file each."""

from __future__ import annotations

from dsdistill.engines.base import Engine
from dsdistill.engines.distribution import DistributionEngine

ENGINES: dict[str, type[Engine]] = {"distribution": DistributionEngine}
"""The ``kind`` a recipe names -> the engine's class."""

__all__ = ["ENGINES", "DistributionEngine", "Engine"]
