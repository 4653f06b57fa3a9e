"""Sources for the tests of imports: digits as other programs would leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dsdistill
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import Task
from dsdistill.importing.run import ImportSummary
from dsdistill.storage.set_file import read
from dsdistill.synthetic.distilled import DistilledSet

LABELS = torch.arange(10).repeat_interleave(2)
"""Of two digits a class."""


def digits(zca: bool = False) -> Task:
    return catalog.load(DataConfig(name="digits", zca=zca), "test")[0]


def unit(count: int = 20, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def network(images: Tensor, preprocess: Preprocess | None = None) -> Tensor:
    """Return images as a method stores them that learns in network space."""
    return (preprocess or digits().preprocess)(images)


def imported(source: Path, **options: Any) -> tuple[DistilledSet, ImportSummary]:
    """Import digits, and read the file back."""
    output = source.parent / f"{source.name}-imported.h5"
    summary = dsdistill.import_set(source, output, **({"dataset": "digits"} | options))
    return read(output), summary


def refused(source: Path, match: str, **options: Any) -> None:
    """Check that an import is refused in one line, and leaves no file."""
    output = source.parent / "refused.h5"
    with pytest.raises(dsdistill.UserError, match=match) as caught:
        dsdistill.import_set(source, output, **({"dataset": "digits"} | options))
    assert "\n" not in str(caught.value)
    assert not output.exists()


def saved(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path
