"""Methods that recover or choose images by a teacher beat noise to which the same teacher gives labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import dsdistill
from tests.helpers.experts import PLAIN, trained_once

RESNET, CONVNET = "resnet10-batch-w4", "convnet2-w8-batch"

PROTOCOL = """
title = "an online teacher at RDED's temperature, with larger steps than RDED's"
source = "these tests"
student = "convnet2-w16"
optimiser = "adamw"
lr = 0.003
weight_decay = 0.01
decays = "matrices"
epochs = 60
schedule = "cosine"
stretch = 2.0
batch_size = 50
augmentation = "flip"
cutmix = 1.0
test_zoom = true
[labels]
source = "teacher"
loss = "kl"
temperature = 20.0
"""

METHODS = {
    "sre2l": ([RESNET], 100),
    "cda": ([RESNET], 100),
    "cv-dd": ([RESNET, CONVNET], 60),
    "wmdd": ([RESNET], 100),
    "infer": ([RESNET, CONVNET], 60),
    "infer-dynamic": ([RESNET, CONVNET], 60),
    "cim": ([RESNET], 30),
    "nrr-dd": ([RESNET], 30),
    "rded": ([RESNET], 0),
    "pca": ([RESNET], 0),
}
"""Networks of the teachers, and iterations."""

HARD, CHANCE = {"pca"}, 10.0
"""Methods without soft labels are to be better than chance, in percent: noise is no better."""

FROM_NOISE = {"sre2l", "cda", "wmdd"}
"""Methods whose images start from noise: students need more epochs to tell them from it."""

LARGER = {"nrr-dd": 16}
"""Sides of the images for methods that need a last map of several places."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, int], Path]:
    """Train, once, a network of a recipe of experts on the digits at a size."""
    folder = tmp_path_factory.mktemp("teachers")

    def of(recipe: str, network: str, size: int) -> Path:
        file = folder / f"{recipe}-{network}-{size}.h5"
        return trained_once(file, recipe, network, count=1, epochs=3, size=size)

    return of


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_set_beats_noise_with_the_same_labels(
    tmp_path: Path, trained: Callable[[str, str, int], Path], method: str
) -> None:
    (networks, iterations), size = METHODS[method], LARGER.get(method, 8)
    recipe = "el2n" if method in HARD else "teacher"
    teachers = [trained(recipe, network, size) for network in networks]
    dsdistill.distill(
        tmp_path / "set.h5",
        dataset="digits",
        method=method,
        ipc=2,
        network=",".join(networks),
        experts=",".join(map(str, teachers)),
        iterations=iterations,
        device="cpu",
        overrides=PLAIN,
    )
    if method in HARD:
        report = dsdistill.evaluate(
            tmp_path / "set.h5", networks="convnet2-w16", epochs=150, repeats=2, baselines=[], device="cpu"
        )
        assert report.rows[0].mean - report.rows[0].std > 2 * CHANCE
        return
    protocol = tmp_path / "protocol.toml"
    protocol.write_text(PROTOCOL)
    report = dsdistill.evaluate(
        tmp_path / "set.h5",
        teacher=trained("teacher", RESNET, size),
        protocol=protocol,
        networks="convnet2-w16",
        epochs=120 if method in FROM_NOISE else None,
        repeats=3,
        baselines=["noise+labels"],
        device="cpu",
        precision="fp32",
    )
    distilled, noise = report.rows
    assert (distilled.set, noise.set) == ("distilled", "noise+labels")
    assert distilled.mean - distilled.std > noise.mean + noise.std
