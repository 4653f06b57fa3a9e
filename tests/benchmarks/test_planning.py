"""The benchmark of plans plans what it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dsdistill
from benchmarks import planning
from benchmarks.planning import FULL, Run, Size

KINDS = ["distribution", "gradient", "trajectory", "experts", "evaluate", "label"]
TOY = Size("digits", "convnet2-w8", {"distribution": 6, "gradient": 1, "trajectory": 4}, 2, 5, 20)


def test_every_kind_is_a_public_call(tmp_path: Path) -> None:
    runs = planning.runs(FULL, tmp_path)
    assert list(runs) == KINDS
    for name, arguments, options in runs.values():
        inspect.signature(getattr(dsdistill, name)).bind(*arguments, **options, callbacks=[])


def here(function: Callable[[Run], dict[str, Any]], run: Run) -> dict[str, Any]:
    """Call a function in this process."""
    return function(run)


@pytest.mark.slow
def test_plans_and_runs_are_compared(tmp_path: Path) -> None:
    planning.prepare(TOY, tmp_path)
    for kind, run in planning.runs(TOY, tmp_path).items():
        row = planning.compared(kind, run, here)
        assert row["planned_seconds"] >= 0
        assert row["seconds"] > 0
        assert row["amount"].split()[1] in ("iterations", "epochs", "steps", "views")
        assert f"{kind:14s}planned" in planning.described(row)
