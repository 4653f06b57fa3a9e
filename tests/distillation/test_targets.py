"""Runs that learn targets: what is stored, and what a resumed run goes on with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import dsdistill
from dsdistill.compute.config import OptimiserConfig
from dsdistill.config.unlabelled import UNLABELLED
from dsdistill.storage import set_file
from dsdistill.synthetic.set import SyntheticSet
from tests.conftest import THREADS
from tests.helpers.clusters import PREPROCESS, start

RUN: dict[str, Any] = {
    "dataset": "digits",
    "ipc": 1,
    "network": "convnet2-w4",
    "iterations": 4,
    "device": "cpu",
    "overrides": [THREADS, "compute.compile=false", "checkpoint.iterations=1", "engine.batch_real=4"],
    "options": {"engine": {"kind": "to-zero"}},
}


@pytest.fixture
def engine(plugs: None) -> None:
    @dsdistill.register_engine
    @dataclass(frozen=True, kw_only=True)
    class ToZero(dsdistill.MatchingEngine):
        """Pulls images and targets towards 0."""

        kind: Literal["to-zero"] = "to-zero"

        @property
        def needs_labels(self) -> bool:
            return False

        @property
        def auxiliary_optimisers(self) -> Mapping[str, OptimiserConfig]:
            return {"targets": OptimiserConfig(lr=0.1, momentum=0.9)}

        def prepare(self, synthetic: SyntheticSet, sources: Any) -> None:
            count = len(synthetic.images)
            synthetic.learn_targets(torch.arange(3.0 * count).view(count, 3), "numbers that count up")

        def separable(self, network: Any) -> bool:
            return False

        def loss(self, synthetic: SyntheticSet, sources: Any) -> dict[str, Tensor]:
            assert synthetic.targets is not None
            return {"size": synthetic.images.square().sum() + synthetic.targets.square().sum()}


@pytest.mark.usefixtures("engine")
def test_what_is_learned_is_stored_and_a_resumed_run_goes_on_with_it(tmp_path: Path) -> None:
    def keep(entry: dict[str, Any]) -> None:
        if entry["iteration"] == 2:
            shutil.copytree(tmp_path / "set.run", tmp_path / "killed.run")

    dsdistill.distill(tmp_path / "set.h5", **RUN, callbacks=[keep])
    whole = set_file.read(tmp_path / "set.h5")
    assert whole.targets is not None
    assert whole.targets.shape == (10, 3)
    assert (whole.targets.abs() < torch.arange(30.0).view(10, 3).abs() + 1e-9).all()
    assert whole.targets.abs().sum() < torch.arange(30.0).sum()
    assert whole.attributes["targets"] == "numbers that count up"
    (tmp_path / "killed.run").rename(tmp_path / "again.run")
    dsdistill.distill(tmp_path / "again.h5", resume=True)
    resumed = set_file.read(tmp_path / "again.h5")
    assert torch.equal(resumed.targets, whole.targets)  # type: ignore[arg-type]


@pytest.mark.usefixtures("engine")
def test_data_without_labels_are_distilled_into_so_many_images_in_all(tmp_path: Path) -> None:
    overrides = [*RUN["overrides"], "data.unlabelled=true"]
    summary = dsdistill.distill(tmp_path / "set.h5", **RUN | {"ipc": 7, "overrides": overrides})
    assert summary.images == 7
    made = set_file.read(tmp_path / "set.h5")
    assert (made.classes, made.attributes["ipc"]) == (UNLABELLED, 7)
    image, target = dsdistill.load(tmp_path / "set.h5", space="unit")[6]
    assert torch.equal(image, made.images[6])
    assert torch.equal(target, made.targets[6])  # type: ignore[arg-type,index]
    with pytest.raises(dsdistill.UserError, match="init=patches chooses images by their classes"):
        dsdistill.distill(tmp_path / "b.h5", **RUN | {"overrides": [*overrides, "init=patches"]})


def test_targets_are_a_parameter_of_the_images_dtype() -> None:
    synthetic = SyntheticSet(start("real", 2), (2, 2), "unit", PREPROCESS).double()
    values = torch.ones(4, 3)
    synthetic.learn_targets(values, "ones")
    assert "targets" in dict(synthetic.named_parameters())
    assert synthetic.state_dict()["targets"].dtype == torch.float64
    assert synthetic.targets is not None
    synthetic.targets.data.zero_()
    assert values.sum() == 12


@pytest.mark.parametrize("shape", [(3, 3), (4,), (4, 0)])
def test_targets_are_a_row_for_each_image(shape: tuple[int, ...]) -> None:
    synthetic = SyntheticSet(start("real", 2), (2, 2), "unit", PREPROCESS)
    with pytest.raises(ValueError, match=r"targets are \[4, d\], one row an image, not"):
        synthetic.learn_targets(torch.ones(shape), "ones")
