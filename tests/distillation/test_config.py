"""Configs: precedence, recipes, round trips."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dsdistill.config.presets import RECIPES
from dsdistill.config.recipe import load_recipe
from dsdistill.distillation import assembly
from dsdistill.distillation import config as configs
from dsdistill.distillation.config import RunConfig, resolve
from dsdistill.engines.distribution import DistributionEngine
from dsdistill.errors import UserError
from tests.helpers.engines import CPU, toy


def told(name: str = "digits", ipc: int = 10, **options: Any) -> RunConfig:
    return resolve({"data": {"name": name}, "ipc": ipc, **options})


def test_toml_reads_back_to_an_equal_config() -> None:
    config = resolve(
        {"data": {"name": "cifar10", "root": "/data", "size": 16}, "ipc": 7, "seed": 3},
        ["compute.compile=false", "engine.batch_real=32", "checkpoint.seconds=1.5"],
    )
    table = tomllib.loads(configs.to_toml(config))
    assert resolve(table) == config
    assert resolve({}, file=table) == config
    assert configs.as_table(config) == table


def test_recipe_then_file_then_flags_then_set() -> None:
    file = {"optimiser": {"lr": 2.0, "momentum": 0.25}, "iterations": 20, "seed": 2}
    given = {"data": {"name": "digits"}, "ipc": 1, "iterations": 30, "seed": 3}
    assert told().optimiser.lr == 10  # the recipe
    config = resolve(given, ["seed=4"], file)
    assert (config.optimiser.lr, config.optimiser.momentum) == (2.0, 0.25)
    assert (config.iterations, config.seed) == (30, 4)
    assert config.engine.batch_real == 256
    assert resolve(given, ["seed=4", "seed=5"], file).seed == 5


def test_every_recipe_resolves() -> None:
    for name in RECIPES.names():
        for data in ("digits", "cifar10", "folder:pets"):
            assert told(data, method=name).method == name


RECIPE = """
title = "Mine"
paper = "none"
follows = "paper"
protocol = "dsa"
[defaults]
network = "mlp"
iterations = 5
engine = { kind = "distribution" }
[[settings]]
when = { dataset = ["digits"], %s }
set = { iterations = 50, optimiser = { momentum = 0.0 } }
"""


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE % "ipc_max = 10")
    assert load_recipe(str(path)).name == "mine"
    config = told(method=str(path))
    assert (config.network, config.protocol, config.iterations) == ("mlp", "dsa", 50)
    assert (config.optimiser.lr, config.optimiser.momentum) == (1.0, 0.0)
    assert told("digits", 11, method=str(path)).iterations == 5
    assert told("cifar10", 10, method=str(path)).iterations == 5
    assert told(method=str(path), iterations=7).iterations == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RECIPE % "ipcmax = 10", "no such condition: ipcmax"),
        ('title = "Mine"', "recipe 'mine': keys 'paper', 'follows' and 'protocol' are missing"),
        (RECIPE.replace("paper = ", "# ") % "ipc_max = 1", "recipe 'mine': key 'paper' is missing"),
        (
            RECIPE.replace("title", "titel") % "ipc_max = 1",
            "recipe 'mine': unknown key 'titel'; did you mean 'title'",
        ),
        (RECIPE.replace("when =", "where =") % "ipc_max = 1", "takes when, set or per_ipc, and source"),
        (RECIPE.replace('"paper"', '"rumour"') % "ipc_max = 1", "'follows' is 'rumour'"),
        ("=", "not valid TOML"),
    ],
)
def test_recipes_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        told(method=str(path))


def test_values_of_set_are_toml_or_bare_words() -> None:
    texts = ["optimiser.lr=0.5", "init=noise", 'network="mlp"', "data.zca=true", "compute.compile = false"]
    config = resolve({"data": {"name": "digits"}, "ipc": 1}, texts)
    assert (config.optimiser.lr, config.init, config.network) == (0.5, "noise", "mlp")
    assert config.data.zca is True
    assert config.compute.compile is False


def test_seconds_say_whether_a_run_is_long_where_it_is_given_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdistill.runtime.compiler.why_unavailable", lambda device: None)

    def compiled(**options: Any) -> bool | str:
        return assembly.decide_auto(told(**options), *toy(), CPU, print).compute.compile

    assert compiled(iterations=10**9) is True
    assert compiled(iterations=10**9, seconds=5.0) is False
    assert compiled(iterations=1) is False
    assert compiled(iterations=1, seconds=3600.0) is True


def test_second_order_has_a_precision_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdistill.runtime.device._multiplies_bf16", lambda device: False)
    notices: list[str] = []
    compute = resolve({"data": {"name": "digits"}, "method": "mtt", "ipc": 1}).compute
    codes = set()
    for name, decided in (("fp32", "fp32"), ("auto", "fp32"), ("bf16", "bf16")):
        told = dataclasses.replace(compute, second_order=name).decide(CPU, 10, notices.append, {})
        assert (told.second_order, told.precision) == (decided, "fp32")
        assert ("second order bf16" in told.describe()) == (decided == "bf16")
        codes.add(told.code({}))
    assert len(codes) == 2  # compiled code follows from it
    assert len(notices) == 1
    all_of_it = dataclasses.replace(compute, precision="bf16", second_order="bf16")
    all_of_it.decide(CPU, 10, notices.append, {})
    assert len(notices) == 2  # one for both


def test_flips_are_left_out_where_they_change_labels() -> None:
    config = told().augmentation
    assert "flip" in config.build(mirror=True).operators
    assert "flip" not in config.build(mirror=False).operators


def test_a_set_is_made_for_the_network_that_is_named() -> None:
    options = {"data": {"name": "fashion-mnist"}, "method": "dsdistill", "ipc": 1}
    assert resolve(options).student == "convnet"
    assert resolve({**options, "network": "convnet-w32"}).student == ""
    assert resolve({**options, "network": "convnet-w32", "student": "mlp"}).student == "mlp"


def test_another_discrepancy_leaves_out_what_the_recipe_says_of_its_own() -> None:
    usual = told("fashion-mnist", 10, method="ncfm")
    config = told("fashion-mnist", 10, method="ncfm", engine={"discrepancy": {"kind": "mean"}})
    assert isinstance(config.engine, DistributionEngine)
    assert config.engine.discrepancy.kind == "mean"
    assert config.engine.batch_real == usual.engine.batch_real
    both = {"discrepancy": {"kind": "mean", "frequencies": 8}}
    with pytest.raises(UserError, match=r"'engine.discrepancy.frequencies' belongs to another kind"):
        told("fashion-mnist", 10, method="ncfm", engine=both)


def test_another_discrepancy_goes_with_networks_of_ones_own() -> None:
    engine = {"discrepancy": {"kind": "mean"}, "supply": {"path": "experts.h5"}}
    config = told("fashion-mnist", 10, method="dsdistill", engine=engine)
    assert isinstance(config.engine, DistributionEngine)
    assert config.engine.discrepancy.kind == "mean"
