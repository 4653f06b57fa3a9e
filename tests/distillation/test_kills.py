"""A distillation killed at any operation on a file is resumed or begun again, and ends with the same set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dsdistill.storage import set_file
from tests.helpers.kills import outcomes


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked")
def test_a_kill_at_any_operation_loses_nothing(tmp_path: Path) -> None:
    found = outcomes("distill", tmp_path, 1, 11)
    assert [each["killed"] for each in found] == [-9] * (len(found) - 1) + [0]
    assert len(found) > 10
    whole = set_file.read(tmp_path / "whole" / "out.h5").images
    for each in found:
        assert each["again"] == 0, each
        assert each["left"] == []
        assert torch.equal(set_file.read(tmp_path / str(each["at"]) / "out.h5").images, whole)
