"""A method that needs experts takes one command: they are trained first, and kept for the next run."""

from __future__ import annotations

from pathlib import Path

import pytest

import dsdistill


def test_one_call_distils_with_a_method_that_needs_experts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))
    summary = dsdistill.distill(
        tmp_path / "set.h5", dataset="digits", method="ncfm", network="convnet2-w8", ipc=1, iterations=2
    )
    assert summary.images == 10
    assert list((tmp_path / "cache" / "experts").glob("ncfm-*.h5"))
