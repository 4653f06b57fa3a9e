"""How much a run passes through networks."""

from __future__ import annotations

import torch

from dsdistill.config.ipc import counts_of
from dsdistill.data.real import RealDataset
from dsdistill.distillation.config import RunConfig
from dsdistill.plugs import names_in
from dsdistill.supply.cost import Cost, Sizes


def images_of_iteration(config: RunConfig, real: RealDataset) -> int:
    """Count the images an iteration passes through a network; with compensators, about so many."""
    return _cost(config, real).passes


def pixels_of_run(config: RunConfig, real: RealDataset) -> int:
    """Count the pixels that a run passes through a network; its IPC is decided.

    Where the real side is cached, real images are passed once for each draw.
    """
    cost, iterations = _cost(config, real), config.iterations
    passes = cost.passes * iterations
    if config.compute.cache_real is True:
        draws = config.engine.supply.distinct_networks() * config.compute.cache_draws
        passes -= int(real.counts.clamp(max=cost.real_per_class).sum()) * max(0, iterations - draws)
    return real.images[0].numel() * passes


def _cost(config: RunConfig, real: RealDataset) -> Cost:
    copies = 2 if config.synthetic.flip else 1
    stored = counts_of(config.ipc, len(real.classes))
    decoded = torch.tensor([config.multi_formation.decoded_count(count) for count in stored])
    if config.synthetic.learn == "compensators":
        decoded *= len(names_in(config.network))
    return config.engine.cost(Sizes(counts=real.counts, decoded=decoded, copies=copies))
