"""A loop that is taken to its end, and those who listen."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import torch

from dsdistill.distillation.config import RunConfig
from dsdistill.distillation.output import store, without_refining
from dsdistill.distillation.run_loop import RunLoop
from dsdistill.runtime.callbacks import Observer
from dsdistill.synthetic.distilled import DistilledSet


def read_every(device: torch.device) -> int:
    """Return the iterations between reads of the losses: reading waits for the device."""
    return 1 if device.type == "cpu" else 10


def taken(
    loop: RunLoop,
    config: RunConfig,
    current: Callable[[], DistilledSet],
    observer: Observer,
    estimated: Callable[[], None],
) -> list[float]:
    """Take the loop to its end, store the snapshots that are due, and return the losses.

    What a callback raises ends the loop, and is raised once the state is saved.

    Args:
        loop: not begun.
        config: of the run.
        current: returns the set as it is.
        observer: sees every entry.
        estimated: called once, when the pace is known.
    """
    losses: list[float] = []
    failure: Exception | None = None
    is_estimated = False
    snapshots, on_the_way = config.checkpoint.snapshots, without_refining(config)
    stored = math.floor(loop.share * snapshots + 1e-9)
    with contextlib.closing(iter(loop)) as entries:  # signals go to their own handlers as soon as it ends
        for entry in entries:
            losses.append(entry["loss"])
            try:
                if failure is None:
                    if loop.pace.is_known and not is_estimated:
                        is_estimated = True
                        estimated()
                    observer.on_iteration(entry, current)
            except Exception as error:
                failure = error
            if failure or observer.stop:
                loop.end()
            due = math.floor(loop.share * snapshots + 1e-9)
            if stored < due < snapshots and not observer.silent:  # the last is the output itself
                store(loop.run.snapshot(loop.iteration), current(), on_the_way, observer.on_notice)
            stored = due
    if failure:
        raise failure
    if observer.stop and loop.share < 1:
        observer.on_notice(
            f"stopped by a callback after {loop.iteration} iterations: {observer.stop}; resume=True goes on"
        )
    return losses
