"""The point of it all: a short distillation beats as many random real images under the same protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import dsdistill
from dsdistill.config.presets import RECIPES
from dsdistill.evaluation.rows import Row
from dsdistill.storage.set_description import describe
from tests.conftest import FLOAT32
from tests.distillation.test_beats_noise import METHODS
from tests.helpers.experts import trained_once
from tests.helpers.transfer import FIVE

NETWORK = "convnet2-w32"

ITERATIONS = {
    "dm": 30,
    "dc": 30,
    "dsa": 20,
    "idc-i": 25,
    "dream": 20,
    "mdc": 25,
    "datadam": 40,
    "datadam-paper": 120,
    "mmd": 30,
    "idm": 30,
    "ncfm": 25,
    "ncfm-minmax": 25,
    "dance": 40,
    "tgdd": 40,
    "dsdistill": 60,
    "acc-dd": 20,
    "mtt": 25,
    "tesla": 25,
    "ftd": 25,
    "datm": 25,
    "ast": 25,
    "fyi-dsa": 20,
    "fyi-mtt": 60,
    "frepo": 100,
    "frepo-flip": 100,
}

EPOCHS = {"dance": 3, "tgdd": 6, "acc-dd": 2, "dsdistill": 4}
"""Of the networks that methods with a recipe of experts of their own match with."""

NETWORKS = dict.fromkeys(("frepo", "frepo-flip"), "wideconvnet2-w16-inputbatch")
"""Of methods that are for others; their students have no normalisation."""

PATIENT = dict.fromkeys(NETWORKS, 400)
"""Epochs of students that take small steps, one an epoch."""

EXCEPTIONS = {
    # It has no labels, but a teacher's features, for networks that pre-train on them: it beats none below.
    "krr-st",
    # It decodes tiles of 4x4 pixels here, in which most of a digit of 8x8 is lost: 60 iterations reach 74 %
    # where ten random images give 69 ± 5 %. Its loss is tested below.
    "idc",
    # Few digits look like themselves in a mirror: forced, 120 iterations reach 72 % where random images give
    # 67 ± 6 %. What it matches is tested against duplication by hand.
    "fyi-dm",
}


def test_every_recipe_beats_random_selection_or_noise_or_is_a_known_exception() -> None:
    assert set(RECIPES.names()) == ITERATIONS.keys() | EXCEPTIONS | METHODS.keys()
    assert not ITERATIONS.keys() & EXCEPTIONS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path | None]:
    """Train, once, the networks on digits that methods match with or follow."""
    folder = tmp_path_factory.mktemp("experts")

    def made(recipe: str, count: int, epochs: int) -> Path:
        return trained_once(folder / f"{recipe}.h5", recipe, NETWORK, count=count, epochs=epochs)

    def needed(method: str) -> Path | None:
        if method.startswith("ncfm"):
            return made("ncfm", count=2, epochs=3)
        if method in EPOCHS:
            return made(method, count=2, epochs=EPOCHS[method])
        followers = {"mtt", "tesla", "ftd", "datm", "ast", "fyi-mtt"}
        return made("mtt", count=3, epochs=12) if method in followers else None

    return needed


@pytest.fixture(scope="module")
def against_random() -> Callable[[Path], tuple[Row, Row]]:
    """Evaluate a set and random images under its protocol; random images once for each protocol."""
    known: dict[str, Row] = {}

    def rows(file: Path) -> tuple[Row, Row]:
        protocol = str(describe(file).attributes["protocol"])
        report = dsdistill.evaluate(
            file,
            epochs=PATIENT.get(str(describe(file).attributes["method"]), 80),
            repeats=3,
            baselines="" if protocol in known else "random",
            device="cpu",
            precision="fp32",
        )
        known.setdefault(protocol, report.rows[-1])
        return report.rows[0], known[protocol]

    return rows


@pytest.mark.slow
@pytest.mark.parametrize("method", ITERATIONS)
def test_a_short_run_on_digits_beats_random_selection(
    tmp_path: Path,
    method: str,
    trained: Callable[[str], Path | None],
    against_random: Callable[[Path], tuple[Row, Row]],
) -> None:
    file, experts = tmp_path / "digits.h5", trained(method)
    overrides = [*FLOAT32, *([f"engine.supply.path={experts}"] if experts else [])]
    if method.startswith("fyi") or method.endswith(
        "flip"
    ):  # a digit's mirror image is not that digit, but here it need not be
        overrides.append("synthetic.flip=force")
    summary = dsdistill.distill(
        file,
        dataset="digits",
        method=method,
        ipc=1,
        network=NETWORKS.get(method, NETWORK),
        iterations=ITERATIONS[method],
        device="cpu",
        overrides=overrides,
    )
    assert summary.iterations == ITERATIONS[method]
    distilled, random = against_random(file)
    assert (distilled.set, random.set) == ("distilled", "random")
    assert distilled.images == random.images == 10
    assert distilled.mean - distilled.std > random.mean + random.std


@pytest.mark.slow
def test_idc_comes_nearer_to_the_gradients_of_a_fixed_network(tmp_path: Path) -> None:
    losses: list[float] = []
    dsdistill.distill(
        tmp_path / "digits.h5",
        dataset="digits",
        method="idc",
        ipc=1,
        network="convnet2-w32",
        iterations=30,
        device="cpu",
        overrides=[
            "engine.supply.updates_per_network=30",  # one network,
            "engine.supply.samples=0",  # as it was drawn
            "optimiser.lr=0.01",
        ],
        callbacks=[lambda entry: losses.append(entry["loss"])],
    )
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])


@pytest.mark.slow
def test_students_that_pre_train_on_a_set_without_labels_learn_more_of_few_labels(tmp_path: Path) -> None:
    """From end to end: a teacher that saw no labels, images with its features, and five labels a class."""
    teacher, file = tmp_path / "teacher.h5", tmp_path / "digits.h5"
    unlabelled = [*FLOAT32, "compute.compile=false", "data.unlabelled=true"]
    dsdistill.train_experts(
        teacher,
        dataset="digits",
        recipe="barlow-twins",
        budget="laptop",
        network="resnet10-batch-w8",
        epochs=10,
        device="cpu",
        overrides=[*unlabelled, "batch_size=128", "twins.projector=[128, 128]"],
    )
    dsdistill.distill(
        file,
        dataset="digits",
        method="krr-st",
        ipc=100,
        network="wideconvnet-w16-batch",
        experts=teacher,
        iterations=100,
        device="cpu",
        overrides=[*unlabelled, "engine.supply.size=2", "engine.supply.max_age=49"],
    )
    options = {"fractions": [FIVE], "epochs": 300, "steps": 100, "repeats": 5, "precision": "fp32"}
    report = dsdistill.evaluate(file, transfer="digits", device="cpu", **options)  # type: ignore[arg-type]
    distilled, scratch = report.rows
    assert (distilled.set, scratch.set) == ("distilled", "scratch")
    assert distilled.transfer is not None
    assert distilled.transfer.labels == 50
    # Of six seeds the means differ by 5 to 11 points; repeats of one number see the same labels.
    assert distilled.mean > scratch.mean + 3
    assert sum(a > b for a, b in zip(distilled.values, scratch.values, strict=True)) >= 4
