"""Engines: what is matched between real and synthetic images, or recovered from a teacher; one file each."""

from __future__ import annotations

from typing import Any, TypeVar

from dsdistill.config.kinds import Kinds
from dsdistill.engines.attention import AttentionEngine
from dsdistill.engines.base import Engine
from dsdistill.engines.decoupled import DecoupledEngine
from dsdistill.engines.distribution import DistributionEngine
from dsdistill.engines.gradient import GradientEngine
from dsdistill.engines.kernel import KernelEngine
from dsdistill.engines.matching import MatchingEngine
from dsdistill.engines.trajectory import TrajectoryEngine

__all__ = [
    "ENGINES",
    "AttentionEngine",
    "DecoupledEngine",
    "DistributionEngine",
    "Engine",
    "GradientEngine",
    "KernelEngine",
    "MatchingEngine",
    "TrajectoryEngine",
    "register_engine",
]

ENGINES = Kinds(
    "engine",
    "dsdistill.engines",
    Engine,
    (AttentionEngine, DecoupledEngine, DistributionEngine, GradientEngine, KernelEngine, TrajectoryEngine),
    "register_engine",
)
"""What the option ``engine`` may be."""

E = TypeVar("E", bound=type[Engine[Any]])


def register_engine(engine: E) -> E:
    """Add an engine of your own, an objective: a decorator, above ``@dataclass``.

    An installed package adds one by an entry point of the group ``dsdistill.engines``, named as its kind. See
    `MatchingEngine`, from which most derive, for an example that distils.

    >>> from dataclasses import dataclass
    >>> from typing import Literal
    >>> @dsdistill.register_engine
    ... @dataclass(frozen=True, kw_only=True)
    ... class Brighter(dsdistill.MatchingEngine):
    ...     kind: Literal["brighter"] = "brighter"
    ...
    ...     def loss(self, synthetic, sources):
    ...         return {"brighter": -synthetic.images.sum()}
    >>> Brighter(batch_real=8).batch_real
    8

    Args:
        engine: a frozen dataclass derived from `Engine`, with a ``kind`` of its own.

    Returns:
        the class, as it is.

    Raises:
        UserError: it is no such class, it lacks a method, an option has a type that TOML cannot hold, or its
            kind is taken.
    """
    return ENGINES.register(engine)
