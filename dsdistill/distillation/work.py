"""How much a run passes through networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsdistill.config.ipc import counts_of
from dsdistill.data.real import RealDataset
from dsdistill.distillation.config import RunConfig
from dsdistill.plugs import names_in
from dsdistill.supply.cost import Cost, Sizes

_TRIAL_PIXELS = {"cpu": 2 * 10**7, "cuda": 10**10}
"""That an iteration may pass through a network to be timed whole: a quarter of a minute to two minutes of a
CPU core, by the network."""


@dataclass(frozen=True)
class IterationImages:
    """Images that an iteration passes through a network, as `Cost` counts them.

    Attributes:
        total: all of them; with compensators, about so many.
        real: those among them that a cached real side saves.
    """

    total: int
    real: int

    @classmethod
    def of(cls, config: RunConfig, real: RealDataset) -> IterationImages:
        """Count them; the IPC is decided."""
        cost = _cost(config, real)
        return cls(cost.passes, int(real.counts.clamp(max=cost.real_per_class).sum()) if cost.kept else 0)


def trial_parts(config: RunConfig, real: RealDataset, parts: int, device: torch.device) -> int:
    """Return in how many parts a dry run divides an iteration, to time one of them: 1 where it is short.

    Args:
        config, real: as for `pixels_of_run`.
        parts: that there are, at most.
    """
    sizes = _sizes(config, real)
    if config.engine.supply.training_images(sizes):  # which every part has to do
        return 1
    pixels = real.images[0].numel() * config.engine.cost(sizes).passes
    return max(1, min(parts, pixels // _TRIAL_PIXELS[device.type]))


def pixels_of_run(config: RunConfig, real: RealDataset) -> int:
    """Count the pixels that a run passes through a network; its IPC is decided.

    Where the real side is cached, real images are passed once for each draw.
    """
    images, iterations = IterationImages.of(config, real), config.iterations
    passes = images.total * iterations
    if config.compute.caches:
        draws = config.engine.supply.distinct_networks() * config.compute.cache_draws
        passes -= images.real * max(0, iterations - draws)
    return real.images[0].numel() * passes


def _cost(config: RunConfig, real: RealDataset) -> Cost:
    return config.engine.cost(_sizes(config, real))


def _sizes(config: RunConfig, real: RealDataset) -> Sizes:
    copies = 2 if config.synthetic.flip else 1
    stored = counts_of(config.ipc, len(real.classes))
    decoded = torch.tensor([config.multi_formation.decoded_count(count) for count in stored])
    compensators = 0
    if config.synthetic.learn == "compensators":
        networks = len(names_in(config.network))
        decoded, compensators = networks * decoded, networks * max(stored)
    return Sizes(
        counts=real.counts,
        decoded=decoded,
        copies=copies,
        feature_dim=1,
        compensators=compensators,
    )
