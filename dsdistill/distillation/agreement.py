"""What the processes that share a run agree on before its first step."""

from __future__ import annotations

import torch

from dsdistill import files
from dsdistill.config.options import as_toml
from dsdistill.config.sharing import shared
from dsdistill.data.real import RealDataset
from dsdistill.distillation import config as configs
from dsdistill.distillation.config import RunConfig
from dsdistill.errors import UserError
from dsdistill.runtime import launch
from dsdistill.runtime.ranks import Ranks


def check_devices(ranks: Ranks, device: torch.device) -> None:
    """Check that each of the processes on a machine has a GPU of its own, as NCCL wants.

    Raises:
        UserError: there are fewer.
    """
    if ranks.count == 1 or device.type != "cuda":
        return
    here, gpus = launch.local_count(), torch.cuda.device_count()
    if here > gpus:
        raise UserError(
            f"{here} processes on a machine with {gpus} CUDA device{'s' if gpus != 1 else ''}: start one for "
            f"each (torchrun --nproc-per-node {gpus}), or pass --device cpu"
        )


def check_same(ranks: Ranks, config: RunConfig, real: RealDataset, resumed: str) -> None:
    """Check that all processes are about the same run.

    Args:
        ranks: the processes.
        config: the options, before any ``auto`` is decided.
        real: the training images.
        resumed: the digest of the run that goes on; empty for a new one.

    Raises:
        UserError: naming what differs.
    """
    if ranks.count == 1:
        return
    options = shared(configs.as_table(config))
    options.pop("seconds")  # what is left of a budget of time, which the first process decides
    ranks.check_same(
        {
            "options": as_toml(options),
            "training images": real.fingerprint,
            "run to resume": resumed,
        }
    )


def agreed(ranks: Ranks, config: RunConfig) -> RunConfig:
    """Return the options that the first process has decided."""
    own = configs.to_toml(config)
    first = ranks.of_first(own)
    return config if first == own else configs.resolve({}, (), files.parse_toml(first))
