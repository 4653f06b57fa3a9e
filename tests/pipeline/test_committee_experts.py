"""``--experts auto`` for a run of several networks: one training and one file of the cache for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.config.recipe import ExpertRecipe
from dsdistill.distillation import config as configs
from dsdistill.files import cache_folder
from dsdistill.pipeline import experts
from dsdistill.pipeline.experts import Scale
from tests.conftest import THREADS
from tests.helpers.callbacks import Told

NETWORKS = "convnet2-w6-batch,convnet2-w4-batch"
RUN: dict[str, Any] = {"dataset": "digits", "method": "sre2l", "ipc": 1, "network": NETWORKS, "iterations": 2}
RUN |= {"overrides": [THREADS], "device": "cpu", "experts": "auto"}


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ExpertRecipe, "scale", {"count": 1, "epochs": 1})


def planned(network: str, *overrides: str) -> list[experts.ExpertPlan]:
    given = {"method": "sre2l", "ipc": 1, "data": {"name": "cifar10"}, "network": network}
    return experts.plans(configs.resolve(given, overrides), Scale("laptop"))


def test_each_network_has_a_plan_and_the_file_that_it_has_alone() -> None:
    both, alone = planned(NETWORKS), planned("convnet2-w4-batch")
    assert [each.config.network for each in both] == NETWORKS.split(",")
    assert both[1].file("data") == alone[0].file("data")
    assert [each.config.count for each in planned(NETWORKS, "engine.supply.networks=3")] == [2, 2]


def test_a_file_is_trained_for_each_once(tmp_path: Path) -> None:
    told: list[str] = []
    dsdistill.distill(tmp_path / "one.h5", **RUN | {"network": "convnet2-w4-batch"}, callbacks=[])
    estimate = dsdistill.dry_run(dsdistill.distill, tmp_path / "both.h5", **RUN)
    assert estimate.before is not None
    assert estimate.before.before is None  # one of them is there already
    summary = dsdistill.distill(tmp_path / "both.h5", **RUN, callbacks=[Told(notify=told.append)])
    assert sum("training 1 by recipe teacher" in sentence for sentence in told) == 1
    assert len(list((cache_folder() / "experts").glob("*.h5"))) == 2
    told.clear()
    config = summary.run_dir / "config.toml"
    dsdistill.distill(
        tmp_path / "again.h5", config=config, device="cpu", callbacks=[Told(notify=told.append)]
    )
    assert not any("training" in sentence for sentence in told)
    one, both, again = (dsdistill.load(tmp_path / f"{name}.h5") for name in ("one", "both", "again"))
    assert both.attributes["network"] == NETWORKS
    assert torch.equal(both.images, again.images)
    assert not torch.equal(both.images, one.images)


def test_a_dry_run_estimates_each_training(tmp_path: Path) -> None:
    estimate = dsdistill.dry_run(dsdistill.distill, tmp_path / "both.h5", **RUN)
    assert estimate.before is not None
    assert estimate.before.before is not None
    assert [name for name, _ in estimate.rows()].count("experts: estimated time") == 2
    assert not (cache_folder() / "experts").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"network": "convnet2-w4"}, "convnet2-w4 has no batch normalisation.* such as convnet2-w4-batch"),
        ({"network": "mlp"}, "mlp has no batch normalisation.* such as resnet18-batch"),
        ({"network": "convnet2-w4-instance"}, "such as resnet18-batch"),
        ({"method": "nrr-dd", "network": "convnet2-w4-batch", "size": 8}, "no global average pooling"),
        ({"method": "nrr-dd", "network": "resnet10-batch-w4", "size": 8}, "pass larger images .--size 16"),
        (
            {
                "method": "cim",
                "network": "convnet2-w4-batch",
                "options": {"engine": {"target": {"layer": 2}}},
            },
            "convnet2-w4-batch has 2 blocks, and no block 2: set engine.target.layer to 0 to 1",
        ),
    ],
)
def test_a_network_that_cannot_be_used_is_refused_before_it_is_trained(
    changes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(dsdistill.UserError, match=problem):
        dsdistill.distill(tmp_path / "set.h5", **RUN | changes)
    assert not list(cache_folder().rglob("*.h5"))
