"""Digits with targets, as a set that students are pre-trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import dsdistill
from dsdistill.config.unlabelled import UNLABELLED
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.evaluation.report import Report
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet

FIVE = 0.037
"""The share of the digits whose labels are five of each class."""


def write_pretraining_set(path: Path, count: int = 100, **attributes: str | int | float) -> Path:
    """Write random digits without labels, whose targets are those of a teacher that knows them well."""
    task, train = catalog.load(DataConfig(name="digits"), "train")
    rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:count]
    origin = {"method": "krr-st", "protocol": "krr-st", "dataset": "digits", "network": "convnet2-w8-batch"}
    data = {"data": json.dumps({"name": "digits", "unlabelled": True})}
    content = DistilledSet(
        train.unit(rows),
        torch.zeros(count, dtype=torch.int64),
        UNLABELLED,
        task.preprocess,
        targets=3 * F.one_hot(train.labels[rows], 10).float(),
        attributes={**origin, **data, **attributes},
    )
    set_file.write(path, content)
    return path


def transferred(file: Path, **options: Any) -> Report:
    """Pre-train and fine-tune two students briefly."""
    brief = {"transfer": "digits", "fractions": [FIVE], "epochs": 20, "steps": 20, "repeats": 2}
    return dsdistill.evaluate(file, **{**brief, "device": "cpu", **options})
