"""What a training decides by itself: every ``auto`` of its config."""

from __future__ import annotations

import dataclasses

import torch

from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.experts.config import ExpertConfig, compiled_options
from dsdistill.runtime.cuda_graphs import Mode, resolve_mode
from dsdistill.runtime.device import training_precision
from dsdistill.runtime.notice import Notify


def decide_auto(
    config: ExpertConfig, task: Task, real: RealDataset, device: torch.device, notify: Notify
) -> ExpertConfig:
    """Decide every ``auto`` from the machine, data and work, so that the written config repeats the work."""
    compute = config.compute
    precision = training_precision(compute.precision, device)  # a slow one is told below
    if config.sharpness.rho and compute.precision == "auto":
        precision = "fp32"  # bfloat16 cannot represent the move of most weights at a ρ of 0.01
    graphs = _graph_mode(config, device)
    compute = dataclasses.replace(compute, precision=precision, cuda_graphs=graphs)
    data = dataclasses.replace(config.data, size=task.size, channels=task.channels)
    config = dataclasses.replace(config, data=data)
    compute = compute.decide(device, _pixels(config, real), notify, compiled_options(config, real))
    return dataclasses.replace(config, compute=compute)


def _graph_mode(config: ExpertConfig, device: torch.device) -> Mode:
    """Decide whether steps may be captured as a CUDA graph.

    Raises:
        UserError: they are to be, and cannot be here.
    """
    mode = resolve_mode(config.compute.cuda_graphs, device)
    changing = {
        "sharpness.rho": config.sharpness.rho,
        "gradient_penalty": config.gradient_penalty,
        "ramp_epochs": config.ramp_epochs,
        "record_el2n": config.record_el2n,
        "objective": not config.needs_labels,
    }
    hindering = [name for name, value in changing.items() if value]
    if mode is True and hindering:
        raise UserError(f"compute.cuda_graphs=true does not go with {hindering[0]}: leave one of them out")
    return False if hindering else mode


def is_too_short(asked: ExpertConfig, config: ExpertConfig, real: RealDataset) -> bool:
    """Whether a training is not compiled because it would not make up for the time that takes.

    Args:
        asked: before `decide_auto`.
        config: after it.
        real: the training images.
    """
    return asked.compute.is_too_short(config.compute, _pixels(config, real))


def _pixels(config: ExpertConfig, real: RealDataset) -> int:
    """Count the pixels that a training passes through a network."""
    return (
        real.images.numel()
        * config.epochs
        * config.count
        * (1 if config.needs_labels and not config.sharpness.rho else 2)
    )
