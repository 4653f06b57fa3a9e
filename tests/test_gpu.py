"""The complete path on a CUDA device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dsdistill


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_distil_resume_and_evaluate(tmp_path: Path, precision: str) -> None:
    told = {"dataset": "digits", "ipc": 2, "network": "convnet2-w16", "iterations": 20, "device": "cuda"}
    overrides = [f"compute.precision={precision}"]
    summary = dsdistill.distill(tmp_path / "a.h5", **told, overrides=overrides)
    assert summary.last_loss < summary.first_loss
    report = dsdistill.evaluate(tmp_path / "a.h5", device="cuda", epochs=20, repeats=2, precision=precision)
    assert [row.set for row in report.rows] == ["distilled", "random"]
    assert all(10 < value <= 100 for row in report.rows for value in row.values)


@pytest.mark.gpu
def test_the_device_changes_no_draw(tmp_path: Path) -> None:
    told = {"dataset": "digits", "ipc": 1, "network": "convnet2-w16", "iterations": 2}
    exact = ["compute.precision=fp32", "compute.compile=false"]
    for device in ("cpu", "cuda"):
        dsdistill.distill(tmp_path / f"{device}.h5", **told, device=device, overrides=exact)
    images = [dsdistill.load(tmp_path / f"{device}.h5", space="unit").images for device in ("cpu", "cuda")]
    torch.testing.assert_close(*images, rtol=1e-3, atol=1e-3)
