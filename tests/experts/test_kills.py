"""A training killed at any operation on a file is resumed or begun again, and ends with the same experts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dsdistill.storage.expert_file import ExpertFile
from tests.helpers.kills import outcomes


def weights(path: Path) -> list[torch.Tensor]:
    file = ExpertFile.open(path)
    return [file.flat(expert, epoch) for expert in range(file.count) for epoch in file.epochs]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked")
def test_a_kill_at_any_operation_loses_nothing(tmp_path: Path) -> None:
    found = outcomes("experts", tmp_path, 1, 17)
    assert [each["killed"] for each in found] == [-9] * (len(found) - 1) + [0]
    assert len(found) > 10
    whole = weights(tmp_path / "whole" / "out.h5")
    for each in found:
        folder = tmp_path / str(each["at"])
        assert each["again"] == 0, each
        assert each["left"] == []
        assert [path.name for path in folder.iterdir()] == ["out.h5"]
        assert all(map(torch.equal, weights(folder / "out.h5"), whole))
