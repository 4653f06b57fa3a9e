"""The decision whether what is compared of real images is computed anew or kept in a `RealCache`."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch

from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation.config import DistillationCompute, RunConfig
from dsdistill.distillation.work import IterationImages
from dsdistill.engines.real_cache import VALUE_BYTES, RealCache
from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.runtime.config import PIXELS_A_SECOND
from dsdistill.runtime.device import available_memory
from dsdistill.supply.base import NetworkRequest
from dsdistill.supply.cost import Cost, Sizes
from dsdistill.text import byte_size

_SHARE_OF_RUN = 8
"""Where the draws are chosen, one of so many iterations computes what it takes, and all others find it."""

_MOST_DRAWS, _FEWEST_DRAWS = 32, 4
"""For each network, where they are chosen; with fewer than the fewest, auto does without a cache."""

_USES = 2
"""How often each draw must be used, on average, for auto to cache where the draws are given."""

_SHARE_OF_MEMORY = 0.8
"""Of the memory that is free, which the cache may take."""


@dataclass(frozen=True)
class _Terms:
    """What the decision rests on.

    Attributes:
        networks: that the supply has in all.
        draw_bytes: that are kept of a draw.
        iterations: that the run takes, at least about.
        free: bytes that the cache may take; None where the system does not tell, or files take it.
        fixed_draws: draws of each network, 0 if they are to be chosen.
    """

    networks: int
    draw_bytes: int
    iterations: int
    free: int | None
    fixed_draws: int

    @property
    def fit(self) -> int:
        """How many draws of each network fit into memory, at most as many as there can be."""
        if self.free is None:
            return 2**31
        return self.free // (self.networks * self.draw_bytes)

    @property
    def draws(self) -> int:
        """Draws of each network, at least one."""
        chosen = min(self.iterations // (_SHARE_OF_RUN * self.networks), _MOST_DRAWS, self.fit)
        return self.fixed_draws or max(1, chosen)

    @property
    def pays(self) -> bool:
        """Whether the cache is worth it, going by the length of the run."""
        if self.fixed_draws:
            return self.iterations >= _USES * self.networks * self.fixed_draws
        return self.draws >= _FEWEST_DRAWS

    def sentence(self) -> str:
        """Say how large the cache is."""
        total = self.networks * self.draws * self.draw_bytes
        return (
            f"{byte_size(total)} for {self.networks} networks x {self.draws} draws of real images, "
            f"{byte_size(self.draw_bytes)} each"
        )

    def check(self) -> None:
        """Check that the cache fits into memory.

        Raises:
            UserError: naming the number of draws that does.
        """
        if self.draws <= self.fit:
            return
        most = byte_size(self.free or 0)
        remedy = f"set compute.cache_draws={self.fit}" if self.fit else "set compute.cache_real=false"
        raise UserError(f"the cached real side takes {self.sentence()}, and may take {most} here: {remedy}")


def decide_caching(
    config: RunConfig, task: Task, real: RealDataset, device: torch.device
) -> DistillationCompute:
    """Decide ``compute.cache_real`` and ``compute.cache_draws``.

    Args:
        config: its supply and IPC are resolved.
        task, real: what is distilled.
        device: that computes.

    Raises:
        UserError: the real side is to be cached, and cannot be.
    """
    compute = config.compute
    off = dataclasses.replace(compute, cache_real=False)
    if compute.cache_real is False or config.engine.supply.needs_experts:  # which is refused later
        return off
    if reason := _obstacle(config, real):
        if compute.cache_real != "auto":
            raise UserError(f"compute.cache_real={str(compute.cache_real).lower()} {reason}")
        return off
    terms = _terms(config, task, real, device)
    if compute.cache_real == "auto" and (not terms.pays or terms.draws > terms.fit):
        return off
    terms.check()
    decided = True if compute.cache_real == "auto" else compute.cache_real
    return dataclasses.replace(compute, cache_real=decided, cache_draws=terms.draws)


def caching_words(
    asked: RunConfig, config: RunConfig, task: Task, real: RealDataset, device: torch.device
) -> str:
    """Say what was decided, where there was something to decide; else nothing.

    Args:
        asked: before `decide_caching`.
        config: after it.
        task, real, device: as for it.
    """
    if asked.compute.cache_real is False or _obstacle(config, real):
        return ""
    terms = _terms(config, task, real, device)
    if config.compute.caches:
        where = ", in files of the run directory" if config.compute.cache_real == "file" else ""
        return f"real side cached: {terms.sentence()}{where}, computed when first needed"
    why = f"{terms.iterations} iterations are too few for" if not terms.pays else "memory is too small for"
    return (
        f"real side computed in every iteration: {why} {terms.networks} networks x {terms.draws} draws "
        "(compute.cache_real=true caches it)"
    )


def build_cache(
    config: RunConfig,
    network: Network,
    task: Task,
    real: RealDataset,
    store: MutableMapping[Hashable, Any] | None = None,
) -> RealCache | None:
    """Return the cache of a run; None if it has none.

    Args:
        config: decided.
        network: of the supply, on the device that computes.
        task, real: what is distilled.
        store: where results are kept, if it is not to be memory.
    """
    compute = config.compute
    if not compute.caches:
        return None
    networks, values = config.engine.supply.distinct_networks(), _kept(config, network, task, real)
    device = next(network.parameters()).device
    store = store if compute.cache_real == "file" else None
    return RealCache(config.seed, networks, compute.cache_draws, values, device, store)


def _obstacle(config: RunConfig, real: RealDataset) -> str:
    """Say why the real side cannot be cached, in words that follow the option; empty if it can be."""
    cost = _cost(config, real, feature_dim=1)
    if not cost.kept:
        return (
            f"is for methods that compare features of real images, and {config.method} is none that says "
            "what to keep of them: set compute.cache_real=false"
        )
    if cost.clustered:
        return "keeps images drawn at random, and clusters choose them: set engine.real_batches.kind=random"
    if config.engine.supply.distinct_networks():
        return ""
    return (
        "needs finitely many networks, and this supply gives every iteration another one: set "
        "engine.supply.kind=snapshots, or have a pool with engine.supply.points=20"
    )


def _terms(config: RunConfig, task: Task, real: RealDataset, device: torch.device) -> _Terms:
    """Return what the decision rests on, for a method whose real side can be cached."""
    request = NetworkRequest(config.network, task, torch.device("cpu"), config.seed, real.fingerprint)
    free = None if config.compute.cache_real == "file" else available_memory(device)
    return _Terms(
        networks=config.engine.supply.distinct_networks(),
        draw_bytes=VALUE_BYTES * _kept(config, request.frozen(), task, real),
        iterations=_iterations(config, real, device),
        free=None if free is None else int(_SHARE_OF_MEMORY * free),
        fixed_draws=config.compute.cache_draws,
    )


def _iterations(config: RunConfig, real: RealDataset, device: torch.device) -> int:
    """Return how many iterations a run takes if its real side is cached.

    If its seconds end it, on a CPU, they are about as many as two cores take.
    """
    if not config.seconds or device.type != "cpu":
        return config.iterations
    images = IterationImages.of(config, real)
    pixels = (images.total - images.real + images.real / _SHARE_OF_RUN) * real.images[0].numel()
    return int(config.seconds * PIXELS_A_SECOND / pixels)


def _kept(config: RunConfig, network: Network, task: Task, real: RealDataset) -> int:
    """Count the values that are kept of a draw, going by the features of blank images."""
    like = next(network.parameters())
    with torch.no_grad():
        blank = torch.zeros(2, *task.shape, device=like.device, dtype=like.dtype)
        feature_dim = config.engine.features(network)(blank).shape[1]
    return _cost(config, real, feature_dim).kept


def _cost(config: RunConfig, real: RealDataset, feature_dim: int) -> Cost:
    counts = real.counts
    sizes = Sizes(counts=counts, decoded=torch.ones_like(counts), feature_dim=feature_dim)
    return config.engine.cost(sizes)
