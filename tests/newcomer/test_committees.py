"""Images are recovered from two networks of different architectures."""

from __future__ import annotations

from pathlib import Path

import torch

import dsdistill


def test_a_committee_of_two_networks(tmp_path: Path) -> None:
    names = ["convnet2-w4-batch", "resnet10-batch-w4"]
    for name in names:
        dsdistill.train_experts(
            tmp_path / f"{name}.h5", dataset="digits", recipe="teacher", network=name, epochs=1
        )
    options = {"dataset": "digits", "method": "sre2l", "ipc": 1, "iterations": 2, "device": "cpu"}
    files = ",".join(str(tmp_path / f"{name}.h5") for name in names)
    dsdistill.distill(tmp_path / "both.h5", network=",".join(names), experts=files, **options)  # type: ignore[arg-type]
    dsdistill.distill(
        tmp_path / "one.h5",
        network=names[0],
        experts=tmp_path / f"{names[0]}.h5",
        **options,  # type: ignore[arg-type]
    )
    both, one = dsdistill.load(tmp_path / "both.h5"), dsdistill.load(tmp_path / "one.h5")
    assert both.images.shape == one.images.shape
    assert not torch.equal(both.images, one.images)
