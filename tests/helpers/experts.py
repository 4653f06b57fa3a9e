"""A toy task to train experts on, and an expert of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import dsdistill
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset, Task
from dsdistill.experts.config import ExpertConfig, resolve
from dsdistill.experts.trainer import Trainer
from dsdistill.seeding import generator

CPU = torch.device("cpu")
PLAIN = ["compute.threads=1", "compute.compile=false", "compute.precision=fp32"]


def toys(count: int = 50) -> tuple[Task, RealDataset]:
    pixels = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator(0, "toys"))
    classes = ("ball", "doll", "kite")
    task = Task("toys", classes, 1, 8, Standardise.of((0.5,), (0.25,)), True)
    return task, RealDataset("toys", "train", pixels, torch.arange(count) % 3, classes)


def trained_once(file: Path, recipe: str, network: str, **options: Any) -> Path:
    """Train experts on the digits unless the file is there, and return it."""
    if not file.exists():
        common = {"dataset": "digits", "recipe": recipe, "network": network, "device": "cpu"}
        dsdistill.train_experts(file, **common, **options, overrides=PLAIN)
    return file


def told(recipe: str = "ncfm", network: str = "convnet2-w6", **options: Any) -> ExpertConfig:
    given = {"recipe": recipe, "network": network, "data": {"name": "digits"}, **options}
    return resolve(given, PLAIN)


def trained(config: ExpertConfig, expert: int, task: Task, real: RealDataset) -> torch.Tensor:
    trainer = Trainer(config, task, real, CPU, print)
    trainer.initialise(expert)
    for epoch in range(config.epochs):
        trainer.train_epoch(expert, epoch, [])
    return torch.cat([each.detach().flatten() for each in trainer.network.parameters()])
