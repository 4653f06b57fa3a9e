"""An objective goes with any supply: a recipe file combines them, without new code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dsdistill
from dsdistill.distillation.config import resolve
from dsdistill.engines import AttentionEngine, GradientEngine
from dsdistill.errors import UserError
from dsdistill.supply import (
    ContinuedConfig,
    FreshConfig,
    PoolConfig,
    QueueConfig,
    RegressionSupplyConfig,
    SnapshotsConfig,
    SupplyConfig,
    TrainedConfig,
)
from tests.conftest import THREADS
from tests.helpers.marks import slow_but_first
from tests.helpers.supply import NETWORK

HEAD = """
title = "a combination of ours"
paper = "none"
follows = "paper"
protocol = "dm"

[defaults]
network = "convnet2-w6"
iterations = 3
optimiser = { lr = 1.0 }
augmentation = { operators = "color_crop_cutout_scale_rotate" }
"""
ATTENTION_ALONG_A_POOL = """
[defaults.engine]
kind = "attention"
batch_real = 8
supply = { kind = "pool" }
"""
GRADIENTS_IN_FRESH_NETWORKS = """
[defaults.engine]
kind = "gradient"
batch_real = 8
supply = { kind = "fresh" }
"""


def run(tmp_path: Path, recipe: str, **options: object) -> torch.Tensor:
    """Distil digits by a recipe file; return the pixels."""
    (tmp_path / "mine.toml").write_text(HEAD + recipe)
    output = tmp_path / "set.h5"
    dsdistill.distill(
        output,
        dataset="digits",
        method=str(tmp_path / "mine.toml"),
        ipc=1,
        device="cpu",
        overwrite=True,
        overrides=[THREADS, "compute.compile=false"],
        **options,  # type: ignore[arg-type]
    )
    return dsdistill.load(output, space="unit").images


@pytest.mark.slow
def test_attention_is_matched_along_a_pool(tmp_path: Path, pool: Path) -> None:
    start = run(tmp_path, ATTENTION_ALONG_A_POOL, experts=pool, iterations=1)
    pixels = run(tmp_path, ATTENTION_ALONG_A_POOL, experts=pool)
    assert torch.equal(pixels, run(tmp_path, ATTENTION_ALONG_A_POOL, experts=pool))
    assert not torch.equal(pixels, start)
    fresh = run(tmp_path, ATTENTION_ALONG_A_POOL.replace('"pool"', '"fresh"'))
    assert not torch.equal(pixels, fresh)


@pytest.mark.slow
def test_gradients_are_matched_in_fresh_networks(tmp_path: Path) -> None:
    pixels = run(tmp_path, GRADIENTS_IN_FRESH_NETWORKS)
    assert torch.equal(pixels, run(tmp_path, GRADIENTS_IN_FRESH_NETWORKS))
    trained = run(
        tmp_path, GRADIENTS_IN_FRESH_NETWORKS.replace('"fresh"', '"trained", updates_per_network = 9')
    )
    assert not torch.equal(pixels, trained)


ENGINES = {
    "attention": "",
    "distribution": "classification = 0.1\n",
    "gradient": "",
    "kernel": "separation = 1.0\n",
}
SUPPLIES = {
    "fresh": "",
    "trained": ", updates_per_network = 2, batch_size = 8",
    "queue": ", size = 2, start = 1, steps = 1, batch_size = 8",
    "pool": "",
    "snapshots": "",
    "continued": ", updates_per_network = 2, batch_size = 8",
}


@pytest.mark.parametrize("supply", slow_but_first(SUPPLIES))
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_takes_every_supply(tmp_path: Path, pool: Path, engine: str, supply: str) -> None:
    recipe = f'[defaults.engine]\nkind = "{engine}"\nbatch_real = 4\n{ENGINES[engine]}'
    recipe += f'supply = {{ kind = "{supply}"{SUPPLIES[supply]} }}\n'
    options = {"experts": pool} if supply in ("pool", "snapshots", "continued") else {}
    assert run(tmp_path, recipe, **options).isfinite().all()


@pytest.mark.parametrize("engine", ENGINES)
def test_networks_that_train_on_what_is_learned_are_of_the_engine_that_learns_it(
    tmp_path: Path, engine: str
) -> None:
    recipe = f'[defaults.engine]\nkind = "{engine}"\nbatch_real = 4\n{ENGINES[engine]}'
    recipe += 'supply = { kind = "population", size = 2, max_age = 1 }\n'
    if engine == "kernel":
        assert run(tmp_path, recipe).isfinite().all()
        return
    with pytest.raises(UserError, match=r"engine\.supply\.kind.*population"):
        run(tmp_path, recipe)


def test_what_recipes_use_is_one_union() -> None:
    kinds = {"fresh": FreshConfig, "trained": TrainedConfig, "queue": QueueConfig, "pool": PoolConfig}
    kinds |= {"snapshots": SnapshotsConfig, "continued": ContinuedConfig}
    for engine in (AttentionEngine, GradientEngine):
        assert engine.__dataclass_fields__["supply"].type == "SupplyConfig"
    assert {kind.kind for kind in SupplyConfig.__origin__.__args__} == set(kinds)  # type: ignore[attr-defined]
    wider = {each.kind for each in RegressionSupplyConfig.__origin__.__args__}  # type: ignore[attr-defined]
    assert wider == {*kinds, "population", "taught"}
    options = {"data": {"name": "digits"}, "ipc": 1, "method": "dsa"}
    assert isinstance(resolve(options).engine, GradientEngine)
    assert isinstance(resolve(options).engine.supply, TrainedConfig)


def test_experts_of_another_network_are_refused(tmp_path: Path, pool: Path) -> None:
    with pytest.raises(dsdistill.UserError, match=f"trained with network {NETWORK}"):
        run(tmp_path, ATTENTION_ALONG_A_POOL, experts=pool, network="convnet2-w8")
