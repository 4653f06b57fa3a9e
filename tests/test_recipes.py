"""The numbers of the recipes are those their authors published; those in between follow the stated rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsdistill.config import RunConfig, load_recipe, resolve
from dsdistill.engines import GradientEngine
from dsdistill.errors import UserError
from dsdistill.formation import Formation
from dsdistill.supply import NetworkTraining


def told(method: str, dataset: str = "cifar10", ipc: int = 10, **options: Any) -> RunConfig:
    return resolve({"method": method, "data": {"name": dataset}, "ipc": ipc, **options})


def engine(*args: Any, **options: Any) -> GradientEngine:
    chosen = told(*args, **options).engine
    assert isinstance(chosen, GradientEngine)
    return chosen


# DC and DSA -------------------------------------------------------------------------------------------------

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
NEAREST = {2: 10, 9: 10, 14: 10, 15: 20, 24: 20, 25: 30, 34: 30, 35: 40, 44: 40, 45: 50, 51: 50, 100: 50}


@pytest.mark.parametrize("method", ["dc", "dsa"])
@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "folder:pets"])
def test_outer_and_inner_loops(method: str, dataset: str) -> None:
    for ipc, listed in ({each: each for each in LOOPS} | NEAREST).items():
        outer, inner = LOOPS[listed]
        training = engine(method, dataset, ipc).training
        assert (training.updates_per_network, training.epochs) == (outer, inner), ipc
        assert told(method, dataset, ipc).iterations == 1000 * outer


def test_dc_and_dsa_differ_in_augmentation_and_where_they_start() -> None:
    dc, dsa = told("dc"), told("dsa")
    training = NetworkTraining(on="synthetic", updates_per_network=10, epochs=50, lr=0.01, batch_size=256)
    for config in (dc, dsa):
        assert config.engine == GradientEngine(batch_real=256, training=training)
        assert (config.engine.metric, config.engine.matched) == ("cosine", "weights")
        assert (training.momentum, training.weight_decay, training.batch_norm) == (0, 0, "refreshed")
        assert (config.optimiser.kind, config.optimiser.lr, config.optimiser.momentum) == ("sgd", 0.1, 0.5)
        assert (config.optimiser.stepping, config.optimiser.clamp_every) == ("together", 0)
        assert (config.network, config.space, config.formation) == ("convnet", "network", Formation())
    assert (dc.init, dc.augmentation.operators, dc.protocol) == ("noise", "none", "dc")
    assert (dsa.init, dsa.protocol) == ("real", "dsa")
    assert (dsa.augmentation.operators, dsa.augmentation.rule) == (
        "color_crop_cutout_flip_scale_rotate",
        "single",
    )


# IDC --------------------------------------------------------------------------------------------------------

IDC = pytest.mark.parametrize("method", ["idc-i", "idc"])


@IDC
@pytest.mark.parametrize(
    ("dataset", "base", "size", "reference"),
    [
        ("cifar10", 5e-3, 32, 32),
        ("cifar100", 5e-3, 32, 32),
        ("svhn", 5e-3, 32, 32),
        ("folder:pets", 5e-3, 32, 32),
        ("kmnist", 5e-3, 28, 32),
        ("mnist", 1e-4, 28, 28),
        ("fashion-mnist", 1e-4, 28, 32),
        ("tiny-imagenet", 5e-3, 64, 32),
        ("imagenette", 3e-3, 128, 224),
    ],
)
def test_learning_rate_of_the_pixels(
    method: str, dataset: str, base: float, size: int, reference: int
) -> None:
    for ipc in (1, 7, 10, 20, 50):
        expected = base * ipc / 10 * (size / reference) ** 2
        assert told(method, dataset, ipc).optimiser.lr == pytest.approx(expected, rel=1e-12)


@IDC
@pytest.mark.parametrize(
    ("dataset", "metric", "samples"),
    [
        ("cifar10", "squared", 2000),
        ("cifar100", "squared", 2000),
        ("svhn", "squared", 500),
        ("mnist", "l1", 500),
        ("fashion-mnist", "l1", 500),
        ("imagenette", "l1", 500),
        ("imagewoof", "l1", 500),
    ],
)
def test_metrics_and_real_images_seen(method: str, dataset: str, metric: str, samples: int) -> None:
    chosen = engine(method, dataset)
    assert (chosen.metric, chosen.training.samples) == (metric, samples)
    assert (chosen.matched, chosen.batch_real, chosen.batch_synthetic) == ("convolutions", 64, 128)
    assert (chosen.training.on, chosen.training.batch_norm) == ("real", "batch")
    assert (chosen.training.lr, chosen.training.momentum, chosen.training.weight_decay) == (0.01, 0.9, 5e-4)
    assert (chosen.training.batch_size, chosen.training.updates_per_network) == (64, 100)


@IDC
def test_pixels_are_stepped_class_by_class_and_clamped_with_every_network(method: str) -> None:
    for dataset in ("cifar10", "mnist", "imagenette", "digits"):
        config = told(method, dataset)
        assert (config.space, config.optimiser.stepping, config.optimiser.momentum) == (
            "unit",
            "per-class",
            0.5,
        )
        assert config.optimiser.clamp_every == engine(method, dataset).training.updates_per_network


def test_cutmix_and_cutout_where_images_are_decoded() -> None:
    for dataset in ("cifar10", "svhn", "fashion-mnist", "imagenette", "mnist"):
        for method in ("idc-i", "idc"):
            bare = (method, dataset) == ("idc", "mnist")
            cutmix = 0.0 if bare else 1.0 if dataset == "imagenette" else 0.5
            assert engine(method, dataset).training.cutmix == cutmix
            config = told(method, dataset).augmentation
            assert config.operators == ("color_crop" if bare else "color_crop_cutout")
            assert config.rule == "idc"


def test_formations() -> None:
    assert Formation() == told("idc-i").formation == told("idc-i", "imagenette", 20).formation
    for ipc in (1, 10, 50):
        assert told("idc", "cifar10", ipc).formation == Formation(factor=2)
    for ipc, mode in ((1, "single"), (10, "single"), (19, "single"), (20, "bound"), (50, "bound")):
        formation = told("idc", "imagenette", ipc).formation
        assert (formation.factor, formation.mode, formation.bound) == (3, mode, 128)
    assert (told("idc").init, told("idc-i").init) == ("mix", "real")


@IDC
def test_imagenet_subsets_warm_their_networks_up(method: str) -> None:
    config = told(method, "imagenette")
    assert (config.network, config.iterations) == ("resnetap10", 50000)
    assert engine(method, "imagenette").training.warm_up == 10
    assert engine(method, "cifar10").training.warm_up == 0
    assert told(method, "cifar10").iterations == 200000


# Settings proportional to the IPC ---------------------------------------------------------------------------

RECIPE = """
title = "Mine"
paper = "none"
follows = "paper"
protocol = "dsa"
[defaults]
network = "mlp"
iterations = 5
engine = { kind = "distribution" }
optimiser = { lr = 3.0, momentum = 0.25 }
"""


def recipe(path: Path, *tables: str) -> str:
    path.write_text(RECIPE + "".join(f"[[settings]]\n{table}\n" for table in tables))
    return str(path)


def test_per_ipc_is_multiplied_by_the_ipc(tmp_path: Path) -> None:
    mine = recipe(
        tmp_path / "mine.toml",
        "when = {}\nper_ipc = { iterations = 20, optimiser = { lr = 0.5 } }",
        'when = { dataset = ["digits"], ipc_min = 3 }\n'
        "set = { seed = 4 }\nper_ipc = { optimiser = { lr = 0.1 } }",
    )
    for dataset, ipc, expected in (
        ("cifar10", 1, (20, 0.5, 0)),
        ("cifar10", 8, (160, 4.0, 0)),
        ("digits", 2, (40, 1.0, 0)),
        ("digits", 4, (80, pytest.approx(0.4), 4)),  # the later table wins
    ):
        config = told(mine, dataset, ipc)
        assert (config.iterations, config.optimiser.lr, config.seed) == expected
        assert config.optimiser.momentum == 0.25
    config = told(mine, "digits", 4, optimiser={"lr": 7.0}, iterations=3)
    assert (config.iterations, config.optimiser.lr) == (3, 7.0)  # as given, not times the IPC


def test_per_ipc_beside_set_in_one_table(tmp_path: Path) -> None:
    mine = recipe(
        tmp_path / "mine.toml",
        "when = {}\nset = { optimiser = { lr = 9.0, momentum = 0.0 } }\nper_ipc = { optimiser = { lr = 2 } }",
    )
    optimiser = told(mine, ipc=3).optimiser
    assert (optimiser.lr, optimiser.momentum) == (6.0, 0.0)


def test_a_misspelt_option_of_per_ipc_is_an_error(tmp_path: Path) -> None:
    mine = recipe(tmp_path / "mine.toml", "when = {}\nper_ipc = { optimiser = { rl = 2 } }")
    with pytest.raises(UserError, match=r"optimiser\.rl"):
        told(mine)
    mine = recipe(tmp_path / "mine.toml", "when = {}\nper_ipx = { optimiser = { lr = 2 } }")
    with pytest.raises(UserError, match="takes when, set or per_ipc"):
        told(mine)


def test_every_table_of_a_gradient_recipe_names_its_source() -> None:
    for name in ("dc", "dsa", "idc-i", "idc"):
        assert all(table["source"] for table in load_recipe(name).settings)
