"""A set takes a few bits a pixel, trains students as before, and is compared with real images coded alike."""

from __future__ import annotations

from pathlib import Path

import torch

import dsdistill


def test_fewer_bytes(tmp_path: Path) -> None:
    told = {"dataset": "digits", "network": "convnet2-w8", "ipc": 1, "options": {"storage": "float32"}}
    dsdistill.distill(tmp_path / "set.h5", **told, iterations=2)
    summary = dsdistill.encode(tmp_path / "set.h5", tmp_path / "small.h5", bits=2)
    assert summary.bytes_after < summary.bytes_before / 4

    before, after = dsdistill.load(tmp_path / "set.h5"), dsdistill.load(tmp_path / "small.h5")
    assert after.images.shape == before.images.shape
    assert torch.equal(after.labels, before.labels)

    report = dsdistill.evaluate(
        tmp_path / "small.h5",
        networks="convnet2-w8",
        epochs=2,
        repeats=1,
        baselines=["random", "random@bytes", "random@1ipc"],
    )
    assert [row.set for row in report.rows] == ["distilled", "random", "random@bytes", "random@1ipc"]
    assert report.rows[3].images > report.rows[2].images  # those of float32 images are more bytes
