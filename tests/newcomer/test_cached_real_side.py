"""A newcomer matches along stored snapshots and has the real side computed once; by public names only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dsdistill


def test_the_real_side_is_computed_once(tmp_path: Path) -> None:
    experts = tmp_path / "experts.h5"
    dsdistill.train_experts(
        experts, dataset="digits", recipe="ncfm", network="convnet2-w8", count=1, epochs=1
    )
    told: dict[str, Any] = {
        "dataset": "digits",
        "ipc": 1,
        "network": "convnet2-w8",
        "experts": experts,
        "options": {"engine": {"supply": {"kind": "snapshots"}}, "compute": {"cache_real": True}},
    }
    estimate = dsdistill.dry_run(dsdistill.distill, tmp_path / "set.h5", **told, iterations=20)
    assert estimate.cached_bytes > 0
    summary = dsdistill.distill(tmp_path / "set.h5", **told, iterations=20)
    assert summary.iterations == 20
    assert len(dsdistill.load(tmp_path / "set.h5")) == 10
    told |= {"method": "ncfm", "options": {"compute": {"cache_real": True}}}
    with pytest.raises(dsdistill.UserError, match=r"engine\.supply\.kind=snapshots"):
        dsdistill.distill(tmp_path / "other.h5", **told, iterations=20)
