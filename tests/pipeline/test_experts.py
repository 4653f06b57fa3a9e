"""Experts that a run needs and nobody has named: which, at which scale, trained once and found again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dsdistill
from dsdistill.config.recipe import ExpertRecipe
from dsdistill.data import hf
from dsdistill.distillation import config as configs
from dsdistill.distillation.config import RunConfig
from dsdistill.files import cache_folder
from dsdistill.networks import add_network
from dsdistill.pipeline import experts
from dsdistill.pipeline.experts import Scale
from tests.conftest import THREADS
from tests.helpers.callbacks import Told

MTT: dict[str, Any] = {"dataset": "digits", "method": "mtt", "ipc": 1, "network": "convnet2-w8"}
MTT |= {"iterations": 2, "overrides": [THREADS, "engine.steps=2"], "device": "cpu"}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the laptop's scale two experts of four epochs."""
    monkeypatch.setattr(ExpertRecipe, "scale", {"count": 2, "epochs": 4})


def resolved(method: str, ipc: int, *overrides: str) -> RunConfig:
    return configs.resolve({"method": method, "ipc": ipc, "data": {"name": "cifar10"}}, overrides)


@pytest.mark.parametrize(
    ("method", "ipc", "start"),
    [
        ("mtt", 1, {}),  # starts below epoch 2, and follows 2 epochs
        ("mtt", 50, {"least": 0, "most": 9}),
        ("datm", 10, {"least": 0, "most": 9, "widen_from": 0, "widen_until": 0}),
    ],
)
def test_laptop_experts_limit_the_starts(method: str, ipc: int, start: dict[str, int]) -> None:
    limits = experts.limits(resolved(method, ipc), Scale("laptop"))
    assert limits == ({"engine": {"start": start}} if start else {})
    assert not experts.limits(resolved(method, ipc), Scale("paper"))
    for sentence in experts.describe(limits):
        assert "engine.start.most=9" in sentence


@pytest.mark.parametrize("name", ["least", "widen"])
def test_limits_make_a_run_that_its_experts_suffice_for(name: str) -> None:
    """Also where the recipe's earliest start is later than these experts go."""
    late = ["engine.start.least=12", "engine.start.widen_until=0"]
    config = resolved("datm", 10, *(late if name == "least" else ["engine.start.widen_from=15"]))
    limited = configs.resolve(
        {"method": "datm", "ipc": 10, "data": {"name": "cifar10"}},
        (),
        experts.limits(config, Scale("laptop")),
    )
    assert limited.engine.epochs_read <= 10


def test_options_of_the_user_ask_for_as_many_epochs_and_experts_as_they_need() -> None:
    config = resolved("mtt", 50, "engine.start.most=19", "engine.supply.experts=8")
    planned = experts.plan(config, Scale("laptop"))
    assert (planned.config.epochs, planned.config.count) == (20, 8)
    assert (planned.config.recipe, planned.config.network) == ("mtt", config.network)


@pytest.mark.parametrize(
    ("method", "recipe", "count", "epochs"),
    [("ncfm-minmax", "ncfm", 20, 60), ("tesla", "mtt", 100, 50), ("datm", "datm", 100, 100)],
)
def test_the_paper_scale_is_that_of_the_recipe(method: str, recipe: str, count: int, epochs: int) -> None:
    planned = experts.plan(resolved(method, 10), Scale("paper"))
    assert (planned.config.recipe, planned.config.count, planned.config.epochs) == (recipe, count, epochs)
    assert "laptop" not in planned.sentence(Path("x.h5"))


def test_a_recipe_of_ones_own_may_name_the_file_of_its_experts_recipe(tmp_path: Path) -> None:
    (tmp_path / "longer.toml").write_text(
        'title = "t"\nbase = "mtt"\ndefaults = { epochs = 80 }\nlaptop = { count = 3, epochs = 20 }\n'
    )
    method = tmp_path / "mine.toml"
    method.write_text('title = "t"\nbase = "mtt"\nexperts = "longer.toml"\n')
    config = resolved(str(method), 1)
    laptop, paper = (experts.plan(config, Scale(budget)) for budget in ("laptop", "paper"))
    assert (laptop.config.count, laptop.config.epochs, paper.config.epochs) == (3, 20, 80)
    assert "training 3 by recipe longer, 20 epochs each" in laptop.sentence(tmp_path / "x.h5")
    assert laptop.config.batch_size == experts.plan(resolved("mtt", 1), Scale("paper")).config.batch_size


def test_whoever_takes_snapshots_gets_those_of_trajectories() -> None:
    config = resolved("dm", 1, "engine.supply.kind=snapshots")
    assert experts.plan(config, Scale("laptop")).config.recipe == "mtt"


def test_the_scale_is_the_laptops_unless_there_is_a_gpu() -> None:
    assert experts.budget_for(None, torch.device("cpu")) == "laptop"
    assert experts.budget_for(None, torch.device("cuda")) == "paper"
    assert experts.budget_for("paper", torch.device("cpu")) == "paper"


def test_the_file_is_another_for_other_data_or_weights_but_not_for_more_of_them() -> None:
    few, many, own = (
        experts.plan(resolved("mtt", 1, *more), Scale("laptop"))
        for more in ((), ("engine.supply.experts=50",), ("engine.start.most=20",))
    )
    assert few.config.count < many.config.count
    assert few.file("a") == many.file("a")
    assert len({few.file("a"), few.file("b"), own.file("a")}) == 3


@pytest.mark.usefixtures("few")
def test_experts_are_trained_once_and_named_in_the_config(tmp_path: Path) -> None:
    told: list[str] = []
    epochs: list[Any] = []

    class Epochs(dsdistill.Callback):
        def on_epoch(self, entry: dict[str, Any]) -> None:
            epochs.append(entry)

    callbacks = [Told(notify=told.append), Epochs()]
    dsdistill.distill(tmp_path / "a.h5", **MTT, callbacks=callbacks)
    assert len(epochs) == 2 * 4
    assert not any("no experts in" in sentence for sentence in told)
    assert any("training 2 by recipe mtt, 4 epochs each (laptop scale" in sentence for sentence in told)
    told.clear()
    empty = MTT | {"overrides": [*MTT["overrides"], "engine.supply.path="]}
    dsdistill.distill(tmp_path / "b.h5", **empty, experts="auto", callbacks=callbacks)
    assert len(epochs) == 2 * 4
    assert not any("needs networks trained beforehand" in sentence for sentence in told)
    (file,) = (cache_folder() / "experts").glob("*.h5")
    dsdistill.distill(tmp_path / "c.h5", **MTT, experts=file)
    a, b, c = (dsdistill.load(tmp_path / f"{name}.h5", space="unit").images for name in "abc")
    assert torch.equal(a, b)
    assert torch.equal(a, c)
    config = tmp_path / "a.run" / "config.toml"
    dsdistill.distill(tmp_path / "d.h5", config=config, device="cpu")
    assert torch.equal(dsdistill.load(tmp_path / "d.h5", space="unit").images, a)
    shared = tmp_path / "shared.toml"
    shared.write_text(str(dsdistill.load(tmp_path / "a.h5").attributes["config"]))
    shutil.rmtree(cache_folder())
    dsdistill.distill(tmp_path / "e.h5", config=shared, experts="auto", device="cpu")
    assert torch.equal(dsdistill.load(tmp_path / "e.h5", space="unit").images, a)
    shutil.rmtree(cache_folder())
    dsdistill.distill(tmp_path / "f.h5", config=shared, device="cpu")
    assert torch.equal(dsdistill.load(tmp_path / "f.h5", space="unit").images, a)


@pytest.mark.usefixtures("few")
def test_a_stopped_training_goes_on(tmp_path: Path) -> None:
    done: list[int] = []

    class Killed(Exception):
        pass

    class Kill(dsdistill.Callback):
        def on_epoch(self, entry: dict[str, Any]) -> None:
            done.append(entry["done"])
            if entry["done"] == 3:
                raise Killed

    with pytest.raises(Killed):
        dsdistill.distill(tmp_path / "set.h5", **MTT, callbacks=[Kill()])
    assert not (tmp_path / "set.h5").exists()
    dsdistill.distill(tmp_path / "set.h5", **MTT, callbacks=[Kill()])
    assert done == list(range(1, 9))


def test_a_dry_run_estimates_the_training_and_writes_nothing(tmp_path: Path) -> None:
    estimate = dsdistill.dry_run(dsdistill.distill, tmp_path / "set.h5", **MTT)
    assert (estimate.covers, estimate.work) == ("distillation", "iterations")
    training = estimate.before
    assert training is not None
    assert (training.covers, training.amount, training.work) == ("experts", 50, "epochs")
    assert estimate.total_seconds >= estimate.seconds + training.seconds > training.seconds > 0
    assert [name for name, _ in estimate.rows() if "time" in name or name == "in all"] == [
        "experts: estimated time",
        "distillation: estimated time",
        "in all",
    ]
    assert not [*tmp_path.rglob("*.h5"), *tmp_path.rglob("*.parts")]


def test_a_dry_run_times_a_pool_with_as_many_networks_as_it_takes(tmp_path: Path) -> None:
    options = {"dataset": "digits", "method": "ncfm", "ipc": 1, "network": "convnet2-w8"}
    estimate = dsdistill.dry_run(dsdistill.distill, tmp_path / "set.h5", **options)
    assert estimate.before is not None
    dsdistill.distill(tmp_path / "set.h5", **options | {"iterations": 1})
    again = dsdistill.dry_run(dsdistill.distill, tmp_path / "other.h5", **options)
    assert again.before is None
    assert again.memory_bytes == estimate.memory_bytes


def test_a_dry_run_says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdistill.experts.training._STAND_IN_BYTES", 1000)
    estimate = dsdistill.dry_run(dsdistill.distill, tmp_path / "set.h5", **MTT)
    assert (estimate.covers, estimate.before) == ("experts", None)
    assert estimate.leaves_out.startswith("the distillation")
    assert ("not estimated", estimate.leaves_out) in estimate.rows()


def test_data_in_memory_get_experts_too(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    options = {"method": "ncfm", "ipc": 1, "network": "convnet2-w8", "iterations": 1}
    dsdistill.distill(tmp_path / "set.h5", dataset=(images, np.arange(40) % 2), **options)
    (file,) = (cache_folder() / "experts").glob("ncfm-*.h5")
    assert dsdistill.ExpertFile.open(file).count == 3


def test_an_unknown_scale_is_refused(tmp_path: Path) -> None:
    with pytest.raises(dsdistill.UserError, match="unknown budget 'laptp'; did you mean 'laptop'"):
        dsdistill.distill(tmp_path / "set.h5", **MTT, budget="laptp")  # type: ignore[arg-type]
    with pytest.raises(dsdistill.UserError, match="unknown budget"):
        dsdistill.train_experts(tmp_path / "e.h5", dataset="digits", recipe="mtt", budget="gpu")  # type: ignore[arg-type]


NETWORK = """
from torch import nn

def make(channels, size, num_classes):
    layers = [nn.Conv2d(channels, 4, 3, padding=1), nn.{activation}(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * size * size, num_classes))
"""


@pytest.mark.usefixtures("plugs")
def test_other_code_of_a_network_has_other_experts(tmp_path: Path) -> None:
    names = []
    for folder, activation in (("a", "ReLU"), ("b", "Tanh")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(NETWORK.format(activation=activation))
        names.append(add_network(f"{tmp_path / folder / 'net.py'}:make"))
    planned = [experts.plan(resolved("mtt", 1, f"network={name}"), Scale("laptop")) for name in names]
    assert len({each.file("data") for each in planned}) == 2


@pytest.mark.usefixtures("few")
def test_more_experts_in_the_cache_change_no_run(tmp_path: Path) -> None:
    dsdistill.distill(tmp_path / "a.h5", **MTT)
    more = MTT | {"overrides": [*MTT["overrides"], "engine.supply.experts=3"]}
    dsdistill.distill(tmp_path / "b.h5", **more)
    (file,) = (cache_folder() / "experts").glob("*.h5")
    assert dsdistill.ExpertFile.open(file).count == 3
    dsdistill.distill(tmp_path / "c.h5", **MTT)
    a, b, c = (dsdistill.load(tmp_path / f"{name}.h5", space="unit").images for name in "abc")
    assert torch.equal(a, c)
    assert not torch.equal(a, b)


@pytest.mark.usefixtures("few")
def test_a_function_hears_of_iterations_only(tmp_path: Path) -> None:
    seen: list[int] = []
    dsdistill.distill(tmp_path / "set.h5", **MTT, callbacks=[lambda entry: seen.append(entry["iteration"])])
    assert seen == [1, 2]


@pytest.mark.usefixtures("few")
def test_whoever_stops_the_training_stops_the_run(tmp_path: Path) -> None:
    class Stop(dsdistill.Callback):
        def on_epoch(self, entry: dict[str, Any]) -> None:
            if entry["done"] == 5:
                raise dsdistill.StopRun("enough")

    with pytest.raises(dsdistill.UserError, match="a callback stopped the training of experts"):
        dsdistill.distill(tmp_path / "set.h5", **MTT, callbacks=[Stop()])
    assert not (tmp_path / "set.run").exists()
    (file,) = (cache_folder() / "experts").glob("*.h5")
    assert dsdistill.ExpertFile.open(file).count == 1
    dsdistill.distill(tmp_path / "set.h5", **MTT)
    assert dsdistill.ExpertFile.open(file).count == 2


@pytest.mark.usefixtures("few")
def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    dsdistill.distill(tmp_path / "a.h5", **MTT)
    (file,) = (cache_folder() / "experts").glob("*.h5")
    file.write_bytes(file.read_bytes()[:5000])
    told: list[str] = []
    dsdistill.distill(tmp_path / "b.h5", **MTT, callbacks=[Told(notify=told.append)])
    assert any(sentence.startswith("the experts are trained anew") for sentence in told)
    a, b = (dsdistill.load(tmp_path / f"{name}.h5", space="unit").images for name in "ab")
    assert torch.equal(a, b)


@pytest.mark.usefixtures("few")
def test_a_run_goes_on_after_the_cache_was_cleared(tmp_path: Path) -> None:
    options = MTT | {"iterations": 4}
    dsdistill.distill(tmp_path / "whole.h5", **options)

    def stop(entry: dict[str, Any]) -> None:
        if entry["iteration"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dsdistill.distill(tmp_path / "set.h5", **options, callbacks=[stop])
    shutil.rmtree(cache_folder())
    dsdistill.distill(tmp_path / "set.h5", **options, resume=True)
    whole, resumed = (dsdistill.load(tmp_path / f"{name}.h5", "unit").images for name in ("whole", "set"))
    assert torch.equal(whole, resumed)


@pytest.mark.usefixtures("few")
def test_the_cache_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "Кэш 😀"))
    assert dsdistill.distill(tmp_path / "set.h5", **MTT).images == 10


@pytest.mark.usefixtures("few")
def test_notices_come_once(tmp_path: Path) -> None:
    told: list[str] = []
    options = MTT | {"overrides": [*MTT["overrides"], "formation.factor=1"]}
    dsdistill.distill(tmp_path / "set.h5", **options, callbacks=[Told(notify=told.append)])
    assert sum("formation" in sentence for sentence in told) == 1


def test_a_scale_without_effect_is_said(tmp_path: Path) -> None:
    told: list[str] = []
    options = {"dataset": "digits", "ipc": 1, "network": "convnet2-w8", "iterations": 1, "device": "cpu"}
    dsdistill.distill(tmp_path / "set.h5", **options, budget="paper", callbacks=[Told(notify=told.append)])
    assert "budget 'paper' changes nothing: no experts are trained for this run" in told
    with pytest.raises(dsdistill.UserError, match="unknown budget"):
        dsdistill.distill(tmp_path / "b.h5", **options, budget="laptp")  # type: ignore[arg-type]


@pytest.mark.usefixtures("few")
def test_tables_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the data are read for the name of the experts' file, for their training and for the run."""
    datasets = pytest.importorskip("datasets")
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    columns = {"image": list(images), "label": [number % 2 for number in range(40)]}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    table.train_test_split(0.5, seed=0).save_to_disk(tmp_path / "pets")
    opened: list[str] = []
    original = hf.opened

    def counted(name: str, fetch: bool = True) -> Any:
        opened.append(name)
        return original(name, fetch)

    monkeypatch.setattr(hf, "opened", counted)
    dsdistill.distill(tmp_path / "set.h5", **MTT | {"dataset": f"hf:{tmp_path / 'pets'}"})
    assert len(opened) == 1


def test_a_teacher_of_another_network_than_the_runs_is_trained_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))
    estimate = dsdistill.dry_run(
        dsdistill.distill,
        tmp_path / "set.h5",
        dataset="digits",
        method="krr-st",
        ipc=2,
        network="wideconvnet2-w4-batch",
        device="cpu",
        options={"data": {"unlabelled": True}, "engine": {"batch_real": 4, "supply": {"max_age": 2}}},
    )
    assert estimate.before is not None
    assert estimate.before.covers == "experts"
