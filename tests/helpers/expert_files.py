"""An expert file of a toy task."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.networks.layout import Layout
from dsdistill.seeding import forked
from dsdistill.storage import expert_writer
from dsdistill.storage.expert_file import ExpertMetadata, TrainingRecord

NETWORK = "convnet2-w6-batch"
TASK = Task("toys", ("ball", "doll", "kite"), 1, 8, Standardise.of((0.5,), (0.25,)), True)
FINGERPRINT = "f" * 64
EPOCHS = (0, 2, 3, 4, 9)


def states(expert: int) -> list[dict[str, Tensor]]:
    per_epoch = []
    for epoch in EPOCHS:
        with forked(expert, "test", epoch):
            network = build_network(NETWORK, 1, 8, 3)
            network(torch.randn(4, 1, 8, 8))  # moves the running statistics
        per_epoch.append(network.state_dict())
    return per_epoch


def metadata(network: str = NETWORK, **others: Any) -> ExpertMetadata:
    common = ExpertMetadata(
        network=network,
        layout=Layout.of(build_network(network, 1, 8, 3)),
        dataset=TASK.name,
        fingerprint=FINGERPRINT,
        classes=TASK.classes,
        channels=TASK.channels,
        size=TASK.size,
        preprocess=TASK.preprocess,
        epochs=EPOCHS,
        seed=7,
        config="lr = 0.1\n",
    )
    return dataclasses.replace(common, **others)


def training(expert: int) -> TrainingRecord:
    return TrainingRecord(0.5 + expert, 0.25, 3.0, "a machine", "2020-01-01T00:00:00+00:00")


def written(path: Path, common: ExpertMetadata | None = None, count: int = 2) -> Path:
    common = common or metadata()
    pack = common.layout.pack
    experts = ((training(e), (pack(state) for state in states(e))) for e in range(count))
    expert_writer.write(path, common, experts, count)
    return path


def refused(call: Any, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
