"""Recipes of recovery from one teacher or several make a set on digits, with little training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from tests.conftest import THREADS
from tests.helpers.callbacks import Killed

NETWORKS = ("convnet2-w8-batch", "convnet2-w6-batch")
WITHOUT_PATCHES = ["init=noise"]


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("teachers")
    files = [folder / f"{name}.h5" for name in NETWORKS]
    for file, name in zip(files, NETWORKS, strict=True):
        options = {"recipe": "teacher", "network": name, "epochs": 1, "device": "cpu"}
        dsdistill.train_experts(file, dataset="digits", overrides=[THREADS], **options)  # type: ignore[arg-type]
    return files


@pytest.mark.parametrize(
    ("method", "several", "more"),
    [
        ("cda", False, []),
        ("wmdd", False, []),
        ("wmdd", True, []),
        ("sre2l", False, ["engine.batches=per-class", "engine.alignment.statistics=class"]),  # LPLD
        ("cv-dd", True, WITHOUT_PATCHES),
    ],
)
def test_a_few_iterations_lower_the_loss(
    tmp_path: Path, teachers: list[Path], method: str, several: bool, more: list[str]
) -> None:
    losses: list[float] = []
    dsdistill.distill(
        tmp_path / "a.h5",
        dataset="digits",
        method=method,
        ipc=2,
        network=",".join(NETWORKS) if several else NETWORKS[0],
        experts=",".join(map(str, teachers)) if several else str(teachers[0]),
        iterations=12,
        device="cpu",
        overrides=[THREADS, *more],
        callbacks=[lambda entry: losses.append(entry["loss"])],
    )
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])
    assert dsdistill.load(tmp_path / "a.h5").sample_weights is None


def test_weights_that_are_learned_are_those_of_the_finished_set(
    tmp_path: Path, teachers: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def weighted(features: torch.Tensor, atoms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return atoms, torch.tensor([0.25, 0.75], dtype=torch.float64)

    monkeypatch.setattr("dsdistill.engines.targets.weighted_barycentre", weighted)
    run: dict[str, Any] = {"dataset": "digits", "method": "wmdd", "ipc": 2, "network": NETWORKS[0]}
    run |= {"experts": str(teachers[0]), "iterations": 2, "device": "cpu"}
    dsdistill.distill(tmp_path / "a.h5", **run, overrides=[THREADS, "engine.target.weights=true"])
    weights = dsdistill.load(tmp_path / "a.h5").sample_weights
    assert weights is not None
    assert weights.tolist() == 10 * [0.5, 1.5]


@pytest.mark.parametrize(
    ("method", "several", "more"),
    [
        ("sre2l", False, []),
        ("cda", False, []),
        ("wmdd", False, []),
        ("cv-dd", True, WITHOUT_PATCHES),
        ("cim", False, []),
        ("sre2l", False, ["init=real", "engine.refresh.every=2"]),  # FADRM
    ],
)
def test_a_run_that_is_killed_ends_with_the_same_images(
    tmp_path: Path, teachers: list[Path], method: str, several: bool, more: list[str]
) -> None:
    told: dict[str, Any] = {"dataset": "digits", "method": method, "ipc": 2, "iterations": 6, "device": "cpu"}
    told["network"] = ",".join(NETWORKS) if several else NETWORKS[0]
    told["experts"] = ",".join(map(str, teachers)) if several else str(teachers[0])
    told["overrides"] = [THREADS, "checkpoint.iterations=2", *more]

    def kill(entry: dict[str, Any]) -> None:
        if entry["iteration"] == 3:
            raise Killed

    whole, output = tmp_path / "whole.h5", tmp_path / "set.h5"
    dsdistill.distill(whole, **told)
    with pytest.raises(Killed):
        dsdistill.distill(output, **told, callbacks=[kill])
    taken: list[int] = []
    dsdistill.distill(output, **told, resume=True, callbacks=[lambda entry: taken.append(entry["iteration"])])
    assert taken == [3, 4, 5, 6]
    images = [dsdistill.load(file).images for file in (whole, output)]
    assert torch.equal(*images)
