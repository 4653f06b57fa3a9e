"""Sets by kernel regression, as a newcomer makes and uses them: with learned labels, or with none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import dsdistill

FEW = ["compute.threads=1", "compute.compile=false", "engine.supply.size=2", "engine.batch_real=64"]


def test_frepo_learns_labels_and_has_a_protocol_of_its_own(tmp_path: Path) -> None:
    dsdistill.distill(
        tmp_path / "frepo.h5",
        dataset="digits",
        method="frepo",
        ipc=2,
        network="wideconvnet2-w8-inputbatch",
        iterations=5,
        overrides=FEW,
    )
    data = dsdistill.load(tmp_path / "frepo.h5", labels="soft")
    assert data.soft_labels is not None
    assert data.soft_labels.shape == (20, 10)
    assert torch.equal(data.soft_labels.argmax(1), data.labels)
    report = dsdistill.evaluate(tmp_path / "frepo.h5", epochs=5, repeats=1, baselines="random", device="cpu")
    assert report.protocol == "frepo"
    assert {row.network for row in report.rows} == {"wideconvnet2-w8-none"}


def test_krr_st_learns_what_a_teacher_says_of_images(tmp_path: Path) -> None:
    dsdistill.train_experts(
        tmp_path / "teacher.h5",
        dataset="digits",
        recipe="teacher",
        network="resnet10-batch-w4",
        count=1,
        epochs=1,
        device="cpu",
        overrides=["compute.threads=1", "compute.compile=false"],
    )
    dsdistill.distill(
        tmp_path / "krr-st.h5",
        dataset="digits",
        method="krr-st",
        ipc=1,
        network="wideconvnet2-w8-batch",
        experts=tmp_path / "teacher.h5",
        iterations=5,
        overrides=[*FEW, "engine.supply.max_age=3"],
    )
    data = dsdistill.load(tmp_path / "krr-st.h5")
    assert data.soft_labels is None
    assert data.targets is not None
    assert data.targets.shape == (10, 32)  # as many numbers as the teacher has features


def test_data_without_labels_make_a_set_to_pre_train_on(tmp_path: Path) -> None:
    plain = ["compute.threads=1", "compute.compile=false"]
    experts = dsdistill.train_experts(
        tmp_path / "ssl.h5",
        dataset="digits",
        recipe="barlow-twins",
        network="resnet10-batch-w4",
        epochs=1,
        device="cpu",
        budget="laptop",
        overrides=plain,
    )
    assert experts.training[0].accuracy > 0.3  # of a linear probe, for which alone the labels were read
    dsdistill.distill(
        tmp_path / "set.h5",
        dataset="digits",
        method="krr-st",
        ipc=12,
        network="wideconvnet2-w8-batch",
        experts=tmp_path / "ssl.h5",
        iterations=5,
        overrides=[*FEW, "engine.supply.max_age=3", "data.unlabelled=true"],
    )
    images, targets = dsdistill.load(tmp_path / "set.h5")[:]
    assert (len(images), targets.shape) == (12, (12, 32))
    brief: dict[str, Any] = {"transfer": "digits", "epochs": 1, "steps": 1, "repeats": 1, "device": "cpu"}
    teacher = tmp_path / "ssl.h5"
    report = dsdistill.evaluate(tmp_path / "set.h5", teacher=teacher, baselines="random+targets", **brief)
    assert [row.set for row in report.rows] == ["distilled", "random+targets"]
