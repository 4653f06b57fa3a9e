"""A newcomer refines a matched set by a teacher, and makes a set of real patches; by public names only."""

from __future__ import annotations

from pathlib import Path

import dsdistill

NETWORK = "resnet10-batch-w4"


def test_a_matched_set_is_refined_by_recovery(tmp_path: Path) -> None:
    teacher, matched = tmp_path / "teacher.h5", tmp_path / "matched.h5"
    dsdistill.train_experts(teacher, dataset="digits", recipe="teacher", network=NETWORK, epochs=2)
    dsdistill.distill(matched, dataset="digits", method="dm", ipc=2, iterations=3, network="convnet2-w8")
    told = {"dataset": "digits", "network": NETWORK, "experts": teacher}
    refined = dsdistill.distill(
        tmp_path / "refined.h5",
        **told,
        method="sre2l",
        init=matched,
        iterations=10,
        options={"optimiser": {"lr": 0.02}},
    )
    assert refined.images == 20
    before, after = (dsdistill.load(tmp_path / f"{name}.h5", space="unit") for name in ("matched", "refined"))
    apart = (after.images - before.images).abs().mean()
    assert 0 < float(apart) < 0.2

    patches = dsdistill.distill(tmp_path / "patches.h5", **told, method="rded", ipc=2)
    assert patches.iterations == 0
    assert patches.images == 20
