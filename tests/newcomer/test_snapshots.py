"""Methods that match with networks along their training take one command, and say what a file lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill

TINY: dict[str, Any] = {"dataset": "digits", "network": "convnet2-w4", "ipc": 1, "iterations": 2}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("method", "epochs"), [("dance", (0, 3)), ("tgdd", tuple(range(9))), ("acc-dd", (0, 1))]
)
def test_one_call_trains_networks_with_the_epochs_that_the_method_reads(
    tmp_path: Path, method: str, epochs: tuple[int, ...]
) -> None:
    summary = dsdistill.distill(tmp_path / "set.h5", method=method, budget="laptop", **TINY)
    assert (summary.images, summary.iterations) == (10, 2)
    (file,) = (tmp_path / "cache" / "experts").glob(f"{method}-*.h5")
    assert dsdistill.ExpertFile.open(file).epochs == epochs


def test_networks_of_first_and_last_epoch_are_refused_where_later_ones_classify(tmp_path: Path) -> None:
    experts, network = tmp_path / "experts.h5", {"dataset": "digits", "network": TINY["network"]}
    dsdistill.train_experts(experts, recipe="dance", count=1, epochs=2, **network)
    told = TINY | {"experts": experts, "method": "tgdd", "overrides": ["engine.supply.region=2"]}
    with pytest.raises(dsdistill.UserError, match=r"classified by a later epoch, .*--set keep=all") as caught:
        dsdistill.distill(tmp_path / "set.h5", **told)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set.h5").exists()


def test_perturbed_networks_give_other_images(tmp_path: Path, pool: Path) -> None:
    told = TINY | {"network": "convnet2-w6", "experts": pool, "method": "dance"}
    dsdistill.distill(tmp_path / "a.h5", **told)
    dsdistill.distill(tmp_path / "b.h5", **told, options={"engine": {"supply": {"perturbation": 0.1}}})
    a, b = (dsdistill.load(tmp_path / f"{name}.h5").images for name in "ab")
    assert not torch.equal(a, b)
