"""The numbers of the recipes are those their authors published; those in between follow the stated rule."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dsdistill.augment.config import AugmentationConfig
from dsdistill.compute.config import OptimiserConfig
from dsdistill.config.recipe import load_expert_recipe, load_recipe
from dsdistill.data.config import DataConfig
from dsdistill.distillation.config import RunConfig, resolve, to_toml
from dsdistill.engines import (
    AttentionEngine,
    DistributionEngine,
    GradientEngine,
    KernelEngine,
    TrajectoryEngine,
)
from dsdistill.engines.discrepancies import Characteristic, Means
from dsdistill.engines.kernel import RidgeConfig
from dsdistill.errors import UserError
from dsdistill.supply import (
    ContinuedConfig,
    PoolConfig,
    PopulationConfig,
    SnapshotsConfig,
    TaughtConfig,
    TrainedConfig,
)
from dsdistill.supply.population import RegressionTraining
from dsdistill.supply.queue import QueueConfig
from dsdistill.supply.trained import TrainingConfig
from dsdistill.synthetic.multi_formation import MultiFormation


def told(method: str, dataset: str = "cifar10", ipc: int = 10, **options: Any) -> RunConfig:
    return resolve({"method": method, "data": {"name": dataset}, "ipc": ipc, **options})


def distribution(*args: Any, **options: Any) -> DistributionEngine:
    chosen = told(*args, **options).engine
    assert isinstance(chosen, DistributionEngine)
    return chosen


def engine(*args: Any, **options: Any) -> GradientEngine:
    chosen = told(*args, **options).engine
    assert isinstance(chosen, GradientEngine)
    return chosen


# DM, IDM, NCFM and DataDAM ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dm", "mmd"])
@pytest.mark.parametrize("ipc", [1, 50, 74, 75, 100, 1250])
def test_dm_and_mmd_move_large_sets_of_cifar10_faster(method: str, ipc: int) -> None:
    for dataset in ("cifar10", "cifar100", "svhn"):
        config = told(method, dataset, ipc)
        fast = dataset == "cifar10" and ipc >= 75
        assert config.optimiser == OptimiserConfig(kind="sgd", lr=10.0 if fast else 1.0, momentum=0.5)
        assert (config.iterations, config.init, config.space) == (20000, "real", "network")
        assert (config.network, config.protocol) == ("convnet", "dm")
        assert config.augmentation.operators == "color_crop_cutout_flip_scale_rotate"
        chosen = distribution(method, dataset, ipc)
        assert (chosen.batch_real, chosen.discrepancy.kind) == (256, {"dm": "mean", "mmd": "mmd"}[method])


NEVER = 1000000

# Real images of a class, weight of the cross-entropy, push interval, training steps, iterations to a reset.
IDM = {
    ("cifar10", 1): (5000, 0.5, 5, 10, 100),
    ("cifar10", 10): (256, 0.5, 30, 10, 100),
    ("cifar10", 50): (256, 0.1, 30, 10, 500),
    ("cifar100", 1): (5000, 0.5, 5, 10, 100),
    ("cifar100", 10): (256, 0.1, 30, 50, 100),
    ("cifar100", 50): (256, 0.1, 30, 10, 500),
    ("tiny-imagenet", 1): (256, 0.5, 30, 10, 100),
    ("tiny-imagenet", 10): (256, 0.5, 30, 10, 500),
    ("tiny-imagenet", 50): (256, 0.8, 30, 50, 1000),
    ("imagenette", 1): (128, 3, 50, 10, NEVER),
    ("imagewoof", 10): (128, 3, 50, 10, NEVER),
    ("imagenet", 50): (128, 3, 50, 10, NEVER),
}


@pytest.mark.parametrize(("dataset", "ipc"), IDM)
def test_idm_as_published(dataset: str, ipc: int) -> None:
    config, chosen = told("idm", dataset, ipc), distribution("idm", dataset, ipc)
    queue = chosen.supply
    assert isinstance(queue, QueueConfig)
    found = (chosen.batch_real, chosen.classification, queue.push_every, queue.steps, queue.forget_every)
    assert found == IDM[dataset, ipc]
    size = 50 if dataset.startswith("image") and ipc < 30 else 100
    assert (queue.size, queue.start, queue.networks, queue.batch_size) == (size, 3, 2, 256)
    assert (queue.lr, queue.momentum, queue.weight_decay) == (0.01, 0.9, 5e-4)
    assert config.optimiser == OptimiserConfig(kind="sgd", lr=0.2, momentum=0.5, updates="per-class")
    whole = (dataset, ipc) == ("imagenet", 50)
    assert config.iterations == 20000
    assert (config.multi_formation.factor, config.init) == ((1, "real") if whole else (2, "mix"))


@pytest.mark.parametrize("method", ["ncfm", "ncfm-minmax"])
@pytest.mark.parametrize(("dataset", "ipc"), [("cifar10", 1), ("cifar100", 10), ("cifar100", 50)])
def test_ncfm_as_published(method: str, dataset: str, ipc: int) -> None:
    config, chosen = told(method, dataset, ipc), distribution(method, dataset, ipc)
    seen = chosen.discrepancy
    assert isinstance(seen, Characteristic)
    assert (chosen.batch_real, chosen.calibration) == (1024, 1)
    assert (seen.frequencies, seen.alpha, seen.beta, seen.scale) == (4096, 0.5, 0.5, 300)
    assert seen.sampler == ("gaussian" if method == "ncfm" else "learned")
    adamw = OptimiserConfig(kind="adamw", lr=1e-3, weight_decay=5e-4)
    sgd = OptimiserConfig(kind="sgd", lr=0.01, momentum=0.5)
    descent = sgd if (dataset, ipc) == ("cifar100", 10) else adamw
    assert config.optimiser == dataclasses.replace(descent, updates="per-class", clamp_every=1, patience=500)
    assert (config.iterations, config.multi_formation, config.space) == (
        20000,
        MultiFormation(factor=2),
        "unit",
    )
    assert config.init == "mix"
    assert (config.augmentation.operators, config.augmentation.rule) == ("color_crop_cutout", "idc")


@pytest.mark.parametrize("method", ["dance", "tgdd"])
@pytest.mark.parametrize(
    ("dataset", "ipc", "lr"),
    [("fashion-mnist", 1, 0.01), ("cifar10", 50, 0.5), ("folder:pets", 10, 0.1), ("imagewoof", 10, 1.0)],
)
def test_dance_and_tgdd_as_published(method: str, dataset: str, ipc: int, lr: float) -> None:
    config, chosen = told(method, dataset, ipc), distribution(method, dataset, ipc)
    sgd = OptimiserConfig(kind="sgd", lr=lr, momentum=0.5, updates="per-class", clamp_every=1)
    assert dataclasses.replace(config.optimiser, lr=pytest.approx(lr)) == sgd  # type: ignore[arg-type]
    assert (config.iterations, config.multi_formation) == (10000, MultiFormation(factor=2))
    assert (config.space, config.init, config.protocol) == ("unit", "mix", "dance")
    assert (config.augmentation.operators, config.augmentation.rule) == ("color_crop_cutout", "idc")
    assert (chosen.batch_real, chosen.discrepancy) == (128, Means())
    supply: object = PoolConfig() if method == "dance" else SnapshotsConfig(region=7)
    assert chosen.supply == supply
    weights = (chosen.calibration, chosen.classification, chosen.classifier)
    assert weights == ((1, 0, "matched") if method == "dance" else (0, 1, "later"))


@pytest.mark.parametrize(("ipc", "lr"), [(1, 1.0), (50, 1.0), (51, 10.0), (100, 10.0)])
def test_datadam_as_released_and_as_printed(ipc: int, lr: float) -> None:
    for method, network, power in (("datadam", "convnet-batch", 1), ("datadam-paper", "convnet", 4)):
        config = told(method, ipc=ipc)
        chosen = config.engine
        assert isinstance(chosen, AttentionEngine)
        assert (config.network, chosen.power, chosen.batch_real, chosen.balance) == (network, power, 64, 0.01)
        assert (config.optimiser.lr, config.optimiser.momentum, config.init) == (lr, 0.5, "real")
        assert config.iterations == (20000 if method == "datadam" else 8000)


# DC and DSA -------------------------------------------------------------------------------------------------

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
NEAREST = {2: 10, 9: 10, 14: 10, 15: 20, 24: 20, 25: 30, 34: 30, 35: 40, 44: 40, 45: 50, 51: 50, 100: 50}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dc", "dsa"])
@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "folder:pets"])
def test_outer_and_inner_loops(method: str, dataset: str) -> None:
    for ipc, listed in ({each: each for each in LOOPS} | NEAREST).items():
        outer, inner = LOOPS[listed]
        training = engine(method, dataset, ipc).supply
        assert (training.updates_per_network, training.epochs) == (outer, inner), ipc
        assert told(method, dataset, ipc).iterations == 1000 * outer


def test_dc_and_dsa_differ_in_augmentation_and_where_they_start() -> None:
    dc, dsa = told("dc"), told("dsa")
    training = TrainedConfig(on="synthetic", updates_per_network=10, epochs=50, lr=0.01, batch_size=256)
    for config in (dc, dsa):
        assert config.engine == GradientEngine(batch_real=256, supply=training)
        assert (config.engine.metric, config.engine.matched) == ("cosine", "weights")
        assert (training.momentum, training.weight_decay, training.batch_norm) == (0, 0, "refreshed")
        assert (config.optimiser.kind, config.optimiser.lr, config.optimiser.momentum) == ("sgd", 0.1, 0.5)
        assert (config.optimiser.updates, config.optimiser.clamp_every) == ("joint", 0)
        assert (config.network, config.space, config.multi_formation) == (
            "convnet",
            "network",
            MultiFormation(),
        )
    assert (dc.init, dc.augmentation.operators, dc.protocol) == ("noise", "none", "dc")
    assert (dsa.init, dsa.protocol) == ("real", "dsa")
    assert (dsa.augmentation.operators, dsa.augmentation.rule) == (
        "color_crop_cutout_flip_scale_rotate",
        "single",
    )


# IDC --------------------------------------------------------------------------------------------------------

IDC = pytest.mark.parametrize("method", ["idc-i", "idc"])


@pytest.mark.slow
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
    assert (chosen.metric, chosen.supply.samples) == (metric, samples)
    assert (chosen.matched, chosen.batch_real, chosen.batch_synthetic) == ("convolutions", 64, 128)
    assert (chosen.supply.on, chosen.supply.batch_norm) == ("real", "batch")
    assert (chosen.supply.lr, chosen.supply.momentum, chosen.supply.weight_decay) == (0.01, 0.9, 5e-4)
    assert (chosen.supply.batch_size, chosen.supply.updates_per_network) == (64, 100)


@IDC
def test_pixels_are_stepped_class_by_class_and_clamped_with_every_network(method: str) -> None:
    for dataset in ("cifar10", "mnist", "imagenette", "digits"):
        config = told(method, dataset)
        assert (config.space, config.optimiser.updates, config.optimiser.momentum) == (
            "unit",
            "per-class",
            0.5,
        )
        assert config.optimiser.clamp_every == engine(method, dataset).supply.updates_per_network


def test_cutmix_and_cutout_where_images_are_decoded() -> None:
    for dataset in ("cifar10", "svhn", "fashion-mnist", "imagenette", "mnist"):
        for method in ("idc-i", "idc"):
            bare = (method, dataset) == ("idc", "mnist")
            cutmix = 0.0 if bare else 1.0 if dataset == "imagenette" else 0.5
            assert engine(method, dataset).supply.cutmix == cutmix
            config = told(method, dataset).augmentation
            assert config.operators == ("color_crop" if bare else "color_crop_cutout")
            assert config.rule == "idc"


def test_formations() -> None:
    assert (
        MultiFormation() == told("idc-i").multi_formation == told("idc-i", "imagenette", 20).multi_formation
    )
    for ipc in (1, 10, 50):
        assert told("idc", "cifar10", ipc).multi_formation == MultiFormation(factor=2)
    for ipc, mode in ((1, "single"), (10, "single"), (19, "single"), (20, "bound"), (50, "bound")):
        formation = told("idc", "imagenette", ipc).multi_formation
        assert (formation.factor, formation.mode, formation.bound) == (3, mode, 128)
    assert (told("idc").init, told("idc-i").init) == ("mix", "real")


@IDC
def test_imagenet_subsets_warm_their_networks_up(method: str) -> None:
    config = told(method, "imagenette")
    assert (config.network, config.iterations) == ("resnetap10", 50000)
    assert engine(method, "imagenette").supply.warm_up == 10
    assert engine(method, "cifar10").supply.warm_up == 0
    assert told(method, "cifar10").iterations == 200000


# Acc-DD: IDC with other networks, and on CIFAR with twice the learning rate
FASTER = {"cifar10": 2.0, "cifar100": 2.0, "svhn": 1.0, "fashion-mnist": 1.0, "imagenette": 1.0}


@pytest.mark.parametrize("dataset", FASTER)
def test_acc_dd_is_idc_with_early_networks(dataset: str) -> None:
    config, idc = told("acc-dd", dataset), told("idc", dataset)
    training = {
        each.name: getattr(idc.engine.supply, each.name) for each in dataclasses.fields(TrainingConfig)
    }
    supply = ContinuedConfig(**{**training, "warm_up": 0}, perturbation=0.078)  # type: ignore[arg-type]
    assert config.engine == dataclasses.replace(idc.engine, supply=supply)
    lr = FASTER[dataset] * idc.optimiser.lr
    assert config.optimiser == dataclasses.replace(idc.optimiser, lr=pytest.approx(lr))  # type: ignore[arg-type]
    assert (config.iterations, config.protocol) == (50000, "idc")
    assert (config.network, config.multi_formation) == (idc.network, idc.multi_formation)
    assert config.augmentation == idc.augmentation


# Trajectory matching ----------------------------------------------------------------------------------------

SUBSETS = ["imagenette", "imagewoof", "imagefruit", "imageyellow", "imagemeow", "imagesquawk"]
SMALL = ["svhn", "mnist", "fashion-mnist", "kmnist"]
FAMILY = ["mtt", "tesla", "ftd", "datm", "ast"]
MTT_LIKE = ["mtt", "tesla", "ftd"]
ALL = 0  # images of a step

# As published: T, M, starts below, images of a step, ZCA, learning rates of pixels and of β, β at first.
PUBLISHED: dict[str, dict[tuple[str, int], tuple[int, int, int, int, bool, float, float, float]]] = {
    "mtt": {
        ("cifar10", 1): (50, 2, 2, ALL, True, 100, 1e-7, 0.01),
        ("cifar10", 10): (30, 2, 20, ALL, True, 100, 1e-5, 0.001),
        ("cifar10", 50): (30, 2, 40, ALL, False, 1000, 1e-5, 0.001),
        ("cifar100", 1): (20, 3, 20, ALL, True, 1000, 1e-5, 0.01),
        ("cifar100", 10): (20, 2, 20, ALL, False, 1000, 1e-5, 0.01),
        ("cifar100", 50): (80, 2, 40, 125, True, 1000, 1e-5, 0.01),
        ("tiny-imagenet", 1): (10, 2, 10, ALL, False, 10000, 1e-4, 0.01),
        ("tiny-imagenet", 10): (20, 2, 40, 200, False, 10000, 1e-4, 0.01),
        ("tiny-imagenet", 50): (20, 2, 40, 300, False, 10000, 1e-4, 0.01),
        **{(name, 1): (20, 2, 10, ALL, False, 1000, 1e-6, 0.01) for name in SUBSETS},
        **{(name, 10): (20, 2, 10, 20, False, 1000, 1e-6, 0.01) for name in SUBSETS},
    },
    "tesla": {
        ("cifar10", 1): (50, 2, 5, ALL, False, 1000, 1e-7, 0.01),
        ("cifar100", 50): (80, 2, 40, 125, True, 1000, 1e-5, 0.01),
        ("imagenet", 1): (10, 3, 10, 100, False, 10000, 1e-4, 0.01),
    },
    "ftd": {
        ("cifar10", 1): (50, 2, 2, ALL, True, 100, 1e-7, 0.01),
        ("cifar10", 10): (30, 2, 20, ALL, True, 100, 1e-5, 0.001),
        ("cifar10", 50): (30, 2, 40, ALL, True, 1000, 1e-5, 0.01),
        ("cifar100", 1): (40, 3, 20, ALL, True, 1000, 1e-5, 0.01),
        ("cifar100", 10): (20, 2, 40, ALL, True, 1000, 1e-5, 0.01),
        ("cifar100", 50): (80, 2, 40, 1000, True, 1000, 1e-5, 0.01),
        ("tiny-imagenet", 1): (30, 2, 10, ALL, False, 10000, 1e-4, 0.01),
        ("tiny-imagenet", 10): (20, 2, 40, 500, False, 10000, 1e-4, 0.01),
    },
    "datm": {
        ("cifar10", 1): (80, 2, 4, ALL, True, 100, 1e-7, 0.01),
        ("cifar10", 10): (80, 2, 20, ALL, True, 100, 1e-5, 0.01),
        ("cifar10", 50): (80, 2, 40, 500, True, 1000, 1e-5, 0.01),
        ("cifar10", 500): (40, 2, 60, 1000, True, 50, 1e-5, 0.01),
        ("cifar10", 1000): (100, 2, 60, 1000, True, 50, 1e-5, 0.01),
        ("cifar100", 1): (40, 3, 20, ALL, True, 1000, 1e-5, 0.01),
        ("cifar100", 10): (80, 2, 50, 1000, True, 1000, 1e-5, 0.01),
        ("cifar100", 50): (80, 2, 70, 1000, True, 1000, 1e-5, 0.01),
        ("cifar100", 100): (80, 2, 70, 1000, True, 50, 1e-5, 0.01),
        ("tiny-imagenet", 1): (40, 2, 20, ALL, True, 10000, 1e-4, 0.01),
        ("tiny-imagenet", 10): (40, 2, 50, 500, True, 100, 1e-4, 0.01),
        ("tiny-imagenet", 50): (20, 2, 70, 1000, True, 100, 1e-4, 0.01),
    },
    "ast": {
        ("cifar10", 10): (30, 2, 20, ALL, True, 100, 1e-6, 0.01),
        ("cifar100", 1): (20, 3, 20, ALL, True, 1000, 1e-5, 0.01),
        ("cifar100", 10): (20, 2, 30, 128, False, 1000, 1e-5, 0.01),
        ("cifar100", 50): (80, 2, 40, 700, False, 1000, 1e-5, 0.01),
        ("tiny-imagenet", 1): (10, 2, 10, ALL, False, 10000, 1e-4, 0.01),
    },
}
ROWS = [(method, *each) for method, rows in PUBLISHED.items() for each in rows]


def followed(*args: Any, **options: Any) -> TrajectoryEngine:
    chosen = told(*args, **options).engine
    assert isinstance(chosen, TrajectoryEngine)
    return chosen


def untyped(method: str, dataset: str, ipc: int) -> tuple[dict[str, Any], int]:
    """Return the options of a recipe, but for the images of a step, and these."""
    found = load_recipe(method).options(dataset, ipc)
    return found, found["engine"].pop("batch_synthetic")


@pytest.mark.parametrize(("method", "dataset", "ipc"), ROWS)
def test_trajectories_as_published(method: str, dataset: str, ipc: int) -> None:
    config = told(method, dataset, ipc)
    engine = config.engine
    assert isinstance(engine, TrajectoryEngine)
    assert PUBLISHED[method][dataset, ipc] == (
        engine.steps,
        engine.expert_epochs,
        engine.start.most,
        engine.batch_synthetic,
        config.data.zca,
        config.optimiser.lr,
        engine.student.learning.lr,
        engine.student.lr,
    )


@pytest.mark.parametrize("method", FAMILY)
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "tiny-imagenet", "imagenette", "digits", "npz:a"])
def test_what_trajectory_methods_have_in_common(method: str, dataset: str) -> None:
    config, engine = told(method, dataset), followed(method, dataset)
    assert config.augmentation == AugmentationConfig(
        operators="color_crop_cutout_flip_scale_rotate", rule="single", align_corners=True
    )
    assert (config.network, config.space, config.multi_formation) == ("convnet", "network", MultiFormation())
    assert (config.optimiser.kind, config.optimiser.momentum) == ("sgd", 0.5)
    assert (config.optimiser.updates, config.optimiser.weight_decay) == ("joint", 0)
    assert engine.student.learning == OptimiserConfig(kind="sgd", lr=engine.student.learning.lr, momentum=0.5)
    assert config.protocol == ("mtt" if method in MTT_LIKE else method)
    iterations = 10000 if method in ("tesla", "datm") else 5000
    assert config.iterations == (200 if dataset == "digits" else iterations)
    assert engine.gradient == ("halved" if method == "tesla" else "exact")
    assert engine.last == 0
    assert engine.student.momentum == (0.9 if method == "ast" else 0)
    assert (config.optimiser.ema > 0) == (method == "ftd")
    assert engine.labels.learned == (engine.skip_above > 0) == (method == "datm")
    if method != "datm":
        assert (engine.start.least, engine.start.widen_until) == (0, 0)
    if method != "ast":
        assert (engine.between, engine.balance, engine.perturbation) == ("none", False, 0)


def test_averages_of_ftd() -> None:
    published = {
        "cifar10": (0.9999, 0.9995, 0.999),
        "cifar100": (0.9995, 0.9995, 0.999),
        "tiny-imagenet": (0.999, 0.999, 0.999),  # 50 images per class are not in the table
    }
    for dataset, expected in published.items():
        assert tuple(told("ftd", dataset, ipc).optimiser.ema for ipc in (1, 10, 50)) == expected


@pytest.mark.parametrize(
    ("dataset", "ipc", "labels", "least", "widening", "init"),
    [
        ("cifar10", 1, 5, 0, None, "correct"),
        ("cifar10", 10, 2, 0, (10, 1000), "correct"),
        ("cifar10", 50, 2, 0, (20, 2000), "correct"),
        ("cifar10", 500, 10, 40, None, "correct"),
        ("cifar10", 1000, 10, 40, None, "correct"),
        ("cifar100", 1, 10, 0, (10, 1000), "correct"),
        ("cifar100", 10, 10, 0, (30, 2000), "correct"),
        ("cifar100", 50, 10, 20, None, "real"),
        ("cifar100", 100, 10, 30, None, "correct"),
        ("tiny-imagenet", 1, 10, 0, (15, 2000), "correct"),
        ("tiny-imagenet", 10, 10, 10, None, "correct"),
        ("tiny-imagenet", 50, 10, 40, None, "correct"),
    ],
)
def test_labels_and_starts_of_datm(
    dataset: str, ipc: int, labels: float, least: int, widening: tuple[int, int] | None, init: str
) -> None:
    chosen = followed("datm", dataset, ipc)
    assert chosen.labels.optimiser == OptimiserConfig(kind="sgd", lr=labels, momentum=0.9)
    assert chosen.start.least == least
    assert (chosen.start.widen_from, chosen.start.widen_until) == (widening or (0, 0))
    assert chosen.skip_above == (1.1 if (dataset, ipc) == ("cifar10", 1) else 1.0)
    assert told("datm", dataset, ipc).init == init


@pytest.mark.parametrize(
    ("dataset", "ipc", "between", "perturbation", "balance", "init"),
    [
        ("cifar10", 10, "equal", 1, True, "real"),
        ("cifar100", 1, "equal", 1, True, "representative"),
        ("cifar100", 10, "equal", 1, False, "representative"),
        ("cifar100", 50, "none", 0, False, "representative"),
        ("tiny-imagenet", 1, "equal", 1, False, "real"),
    ],
)
def test_losses_and_first_images_of_ast(
    dataset: str, ipc: int, between: str, perturbation: float, balance: bool, init: str
) -> None:
    chosen = followed("ast", dataset, ipc)
    assert (chosen.between, chosen.perturbation, chosen.balance) == (between, perturbation, balance)
    assert told("ast", dataset, ipc).init == init


@pytest.mark.parametrize("method", FAMILY)
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "tiny-imagenet"])
def test_trajectories_of_an_ipc_not_listed_are_the_nearest_ones(method: str, dataset: str) -> None:
    nearest = {2: 1, 5: 1, 6: 10, 9: 10, 29: 10, 30: 50, 49: 50, 70: 50}
    if method == "datm":
        nearest |= {74: 50, 75: 100, 200: 100} if dataset == "cifar100" else {}
        nearest |= {274: 50, 275: 500, 749: 500, 750: 1000, 5000: 1000} if dataset == "cifar10" else {}
    for ipc, listed in nearest.items():
        assert untyped(method, dataset, ipc)[0] == untyped(method, dataset, listed)[0], ipc


@pytest.mark.parametrize("method", FAMILY)
@pytest.mark.parametrize("dataset", [*SMALL, "folder:pets"])
def test_other_small_sets_take_the_trajectories_of_cifar10_without_whitening(
    method: str, dataset: str
) -> None:
    for ipc in (1, 10, 50):
        known = "mtt" if (method, dataset, ipc) == ("tesla", "folder:pets", 1) else method
        found, _ = untyped(method, dataset, ipc)
        expected, _ = untyped(known, "cifar10", ipc)
        assert found["engine"]["start"] == expected["engine"]["start"]
        assert found["engine"]["steps"] == expected["engine"]["steps"]
        assert found["engine"]["student"] == expected["engine"]["student"]
        assert found["optimiser"] == expected["optimiser"]
        assert not found.get("data", {}).get("zca", False)


@pytest.mark.slow
@pytest.mark.parametrize("method", FAMILY)
def test_the_images_of_a_step_are_there_and_bounded(method: str) -> None:
    sizes = {"cifar10": 10, "fashion-mnist": 10, "imagenette": 10, "digits": 10}
    sizes |= {"cifar100": 100, "tiny-imagenet": 200, "imagenet": 1000}
    for dataset, classes in sizes.items():
        for ipc in (1, 2, 5, 6, 9, 10, 11, 29, 30, 49, 50, 100, 101, 150, 300, 1000):
            _, batch = untyped(method, dataset, ipc)
            assert batch <= ipc * classes
            assert batch or ipc * classes <= 1000 or dataset == "digits"
    for ipc in (1, 50, 1000):
        assert untyped(method, "npz:a", ipc)[1] == ALL  # of how many classes is not known


@pytest.mark.parametrize("method", FAMILY)
def test_whitening_of_a_recipe_may_be_left_out(method: str) -> None:
    assert told(method).data.zca
    options = {"data": {"name": "cifar10", "root": "/data"}, "method": method, "ipc": 10}
    assert resolve(options).data == DataConfig(name="cifar10", root=Path("/data"), zca=True)
    assert not resolve(options, ["data.zca=false"]).data.zca
    assert not resolve({**options, "data": {"name": "cifar10", "zca": False}}).data.zca
    assert not resolve(options, file={"data": {"zca": False}}).data.zca
    assert not resolve({**options, "data": {"name": "svhn"}}).data.zca
    assert resolve({**options, "data": {"name": "svhn", "zca": True}}).data.zca
    assert resolve(tomllib.loads(to_toml(resolve(options, ["data.zca=false"])))).data.zca is False


def test_tesla_is_mtt_where_it_lists_nothing() -> None:
    for dataset in ("cifar10", "cifar100", "tiny-imagenet", "imagenette", "digits"):
        for ipc in (1, 10, 50):
            if (dataset, ipc) == ("cifar10", 1):
                continue
            (ours, batch), (theirs, same) = untyped("tesla", dataset, ipc), untyped("mtt", dataset, ipc)
            ours |= {"method": "mtt", "iterations": theirs["iterations"]}
            ours["engine"]["gradient"] = "exact"
            assert (ours, batch) == (theirs, same)


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


def test_recipes_begin_from_others_but_not_in_a_ring(tmp_path: Path) -> None:
    def write(name: str, base: str, momentum: float) -> str:
        text = f'title = "t"\npaper = "p"\nfollows = "paper"\nprotocol = "dm"\nbase = "{base}"\n'
        (tmp_path / f"{name}.toml").write_text(f"{text}[defaults.optimiser]\nmomentum = {momentum}\n")
        return str(tmp_path / f"{name}.toml")

    mine, yours = write("mine", "yours.toml", 0.125), write("yours", "dsa", 0.25)
    assert [recipe.name for recipe in load_recipe(mine).lineage()] == ["mine", "yours", "dsa"]
    assert (told(mine).optimiser.momentum, told(yours).optimiser.momentum) == (0.125, 0.25)
    assert told(mine).engine == told("dsa").engine
    for base in ("mine", "yours"):
        write("yours", f"{base}.toml", 0.25)
        with pytest.raises(UserError, match=rf"recipe '{base}' begins from '.*/yours.toml', which begins"):
            told(mine)


def test_a_recipe_has_paper_source_and_protocol_of_its_base(tmp_path: Path) -> None:
    def write(name: str, base: str, more: str = "") -> str:
        (tmp_path / f"{name}.toml").write_text(f'title = "{name}"\nbase = "{base}"\n{more}')
        return str(tmp_path / f"{name}.toml")

    mine = load_recipe(write("mine", write("yours", "ncfm-minmax", 'paper = "ours"')))
    assert (mine.title, mine.paper, mine.follows, mine.protocol) == ("mine", "ours", "paper", "ncfm")
    experts = load_expert_recipe(write("theirs", "ftd"))
    base = load_expert_recipe("ftd")
    assert (experts.title, experts.paper, experts.follows) == ("theirs", base.paper, base.follows)
    assert experts.options("cifar10") == base.options("cifar10") | {"recipe": "theirs"}
    write("mine", "yours.toml")
    with pytest.raises(
        UserError, match=r"recipe '(mine|yours)' begins from '.*\.toml', which begins from it"
    ):
        load_recipe(write("yours", "mine.toml"))
    with pytest.raises(UserError, match=r"unknown method 'dmm'; did you mean 'dm'?"):
        load_recipe(write("mine", "dmm"))


@pytest.mark.parametrize(
    ("dataset", "protocol"), [("imagenet", "fkd"), ("imagenette", "fkd"), ("cifar10", "sre2l")]
)
def test_an_heir_has_the_protocol_that_its_base_has_for_the_data(dataset: str, protocol: str) -> None:
    for method in ("sre2l", "cda"):
        options = load_recipe(method).options(dataset, 10)
        assert (options["method"], options["protocol"]) == (method, protocol)


@pytest.mark.parametrize("method", ["sre2l", "cda", "cv-dd", "wmdd", "cim"])
@pytest.mark.parametrize(("dataset", "most"), [("cifar10", 4), ("fashion-mnist", 4), ("imagenet", 32)])
def test_small_images_are_shifted_by_few_pixels(method: str, dataset: str, most: int) -> None:
    view = load_recipe(method).options(dataset, 10)["engine"].get("view", {})
    assert view.get("shift", [0, most]) == [0, most]


def test_data_sets_of_a_table_are_a_list(tmp_path: Path) -> None:
    """In a text, "cifar10" would be found in "cifar100"."""
    mine = recipe(tmp_path / "mine.toml", 'when = { dataset = "cifar100" }\nset = { seed = 4 }')
    with pytest.raises(UserError, match="dataset is a list of names, not 'cifar100'"):
        told(mine)


def test_every_table_of_a_recipe_names_its_source() -> None:
    for name in ("dc", "dsa", "idc-i", "idc", *FAMILY):
        assert all(table["source"] for table in load_recipe(name).settings)


# FRePo and KRR-ST -------------------------------------------------------------------------------------------

FREPO = [("fashion-mnist", 50, False, False), ("mnist", 1, False, False), ("cifar10", 50, True, True)]
FREPO += [("cifar100", 1, True, True), ("cifar100", 10, False, True), ("tiny-imagenet", 1, True, True)]
FREPO += [("tiny-imagenet", 10, False, True), ("imagenet", 1, False, False)]


@pytest.mark.parametrize(("dataset", "ipc", "flip", "zca"), FREPO)
def test_frepo_as_published(dataset: str, ipc: int, flip: bool, zca: bool) -> None:
    config = told("frepo", dataset, ipc)
    assert (config.synthetic.flip, config.data.zca) == (flip, zca)
    assert told("frepo-flip", dataset, ipc).synthetic.flip is True
    assert (config.iterations, config.network, config.init) == (500000, "wideconvnet-inputbatch", "real")
    assert (config.space, config.protocol, config.augmentation.operators) == ("network", "frepo", "none")
    optimiser = OptimiserConfig(kind="lamb", lr=3e-4, eps=1e-6, schedule="cosine", final=0.1)
    assert dataclasses.replace(config.optimiser, momentum=optimiser.momentum) == optimiser
    training = RegressionTraining(loss="sse", optimiser="adam", lr=3e-4, batch_size=1000)
    supply = PopulationConfig(size=10, max_age=101, first_ages="staggered", training=training)
    assert config.engine == KernelEngine(batch_real=1024, supply=supply, separation=1.0, ridge=RidgeConfig())


KRR_ST = {"cifar100": ("wideconvnet-batch", 1e-4), "tiny-imagenet": ("wideconvnet-w64-batch", 1e-5)}
KRR_ST |= {"imagenet": ("wideconvnet-w64-batch", 1e-5), "imagenette": ("wideconvnet5-w32-batch", 1e-3)}


@pytest.mark.parametrize("dataset", KRR_ST)
def test_krr_st_as_published(dataset: str) -> None:
    config = told("krr-st", dataset, 10)
    assert (config.network, config.optimiser.lr) == KRR_ST[dataset]
    assert (config.optimiser.kind, config.optimiser.weight_decay) == ("adamw", 0.0)
    assert [
        config.optimiser.rate(number, 10) / config.optimiser.lr for number in (0, 5, 10)
    ] == pytest.approx([1, 0.5005, 1e-3])
    assert (config.augmentation.operators, config.augmentation.rule) == ("crop_flip", "fyi")
    training = RegressionTraining(
        loss="mse", optimiser="sgd", lr=0.1, momentum=0.9, weight_decay=1e-3, batch_size=0
    )
    supply = TaughtConfig(size=10, max_age=999, first_ages="random", pretrain=True, training=training)
    ridge = RidgeConfig(strength=1e-6, of="sum", constant=True)
    assert config.engine == KernelEngine(supply=supply, loss_of="mse", bias=True, ridge=ridge)


@pytest.mark.parametrize(
    ("method", "dataset", "ipc", "images"),
    [
        ("dsdistill", "fashion-mnist", 50, 0),
        ("dance", "cifar10", 10, 200),
        ("tgdd", "cifar10", 10, 200),
        ("dm", "cifar10", 50, 0),
    ],
)
def test_images_of_a_class_that_are_matched_at_once(method: str, dataset: str, ipc: int, images: int) -> None:
    config = resolve({"data": {"name": dataset}, "method": method, "ipc": ipc})
    assert isinstance(config.engine, DistributionEngine)
    assert config.engine.batch_synthetic == images
