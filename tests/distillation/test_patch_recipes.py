"""Recipes whose sets start from patches that a teacher chooses: RDED, CIM, NRR-DD."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.objectives.cam import class_activation
from dsdistill.storage import set_file
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.synthetic.distilled import DistilledSet
from tests.helpers.callbacks import Told
from tests.helpers.experts import PLAIN, trained_once

NETWORK = "resnet10-batch-w4"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Train, once, a teacher of the digits at a size."""
    folder = tmp_path_factory.mktemp("teachers")

    def of(size: int) -> Path:
        return trained_once(folder / f"{size}.h5", "teacher", NETWORK, epochs=2, size=size)

    return of


def made(output: Path, method: str, experts: Path, *overrides: str, **options: Any) -> DistilledSet:
    dsdistill.distill(
        output,
        dataset="digits",
        method=method,
        ipc=2,
        network=NETWORK,
        experts=experts,
        device="cpu",
        overrides=[*PLAIN, "storage=float32", *overrides],
        **options,
    )
    return set_file.read(output)


def test_rded_stores_what_it_starts_from(tmp_path: Path, teacher: Callable[[int], Path]) -> None:
    found = made(tmp_path / "set.h5", "rded", teacher(8))
    assert found.images.shape == (20, 1, 8, 8)
    assert found.attributes["iterations"] == 0
    assert found.attributes["protocol"] == "rded"
    again = made(tmp_path / "again.h5", "rded", teacher(8))
    assert torch.equal(found.images, again.images)
    hard = made(tmp_path / "hard.h5", "rded", teacher(8), "patches.pick=hardest")
    losses = [_loss(each, teacher(8)) for each in (found, hard)]
    assert losses[0] + 0.5 < losses[1]


def _loss(distilled: DistilledSet, experts: Path) -> float:
    logits = _network(experts, 8)(distilled.preprocess(distilled.images))
    return float(torch.nn.functional.cross_entropy(logits, distilled.labels))


def _network(experts: Path, size: int) -> Any:
    network, file = build_network(NETWORK, 1, size, 10), ExpertFile.open(experts)
    network.load_state_dict(file.state(0, file.epochs[-1]))
    return network.eval().requires_grad_(False)


def test_cim_refines_whole_images_in_tiles(tmp_path: Path, teacher: Callable[[int], Path]) -> None:
    losses: list[float] = []
    callbacks = [lambda entry: losses.append(entry["loss"])]
    found = made(tmp_path / "set.h5", "cim", teacher(8), iterations=12, callbacks=callbacks)
    assert found.multi_formation.factor == 2
    assert found.decoded_count == 80
    begun = made(tmp_path / "begun.h5", "cim", teacher(8), iterations=0)
    _, real = load(DataConfig(name="digits"), "train")
    first = [real.unit(real.indices_of(label)[:300]) for label in range(10)]
    for image, label in zip(begun.images, begun.labels.tolist(), strict=True):
        tile = image[None, :, :4, :4]
        assert (first[label][:, :, ::2, ::2] == tile).flatten(1).all(1).any()
    apart = (found.images - begun.images).abs()
    assert 0 < float(apart.mean()) < 12 * 0.011  # steps of AdamW are at most its learning rate, and decay
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_nrr_dd_leaves_what_the_teacher_looks_at(tmp_path: Path, teacher: Callable[[int], Path]) -> None:
    begun = made(tmp_path / "begun.h5", "nrr-dd", teacher(16), iterations=0)
    found = made(tmp_path / "set.h5", "nrr-dd", teacher(16), iterations=4)
    assert found.images.shape == (20, 1, 16, 16)
    network = _network(teacher(16), 16)
    maps, _ = network.trace(begun.preprocess(begun.images))
    looks = class_activation(maps[-1], network.classifier.weight[begun.labels], 16)
    moved = (found.images - begun.images).abs()[:, 0]
    assert float(moved[looks > 0.501].max()) < 1e-5
    assert float((moved > 1e-3).float()[looks < 0.4].mean()) > 0.3
    assert 0.05 < float((looks > 0.5).float().mean()) < 0.95


def test_a_resumed_run_has_the_same_mask(tmp_path: Path, teacher: Callable[[int], Path]) -> None:
    whole = made(tmp_path / "whole.h5", "nrr-dd", teacher(16), iterations=5)

    def stop(entry: dict[str, Any]) -> None:
        if entry["iteration"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "part.h5", "nrr-dd", teacher(16), iterations=5, callbacks=[stop])
    resumed = made(tmp_path / "part.h5", "nrr-dd", teacher(16), iterations=5, resume=True)
    assert torch.equal(resumed.images, whole.images)


@pytest.mark.parametrize(
    ("method", "overrides", "said"),
    [
        ("nrr-dd", ["data.size=8"], "has one place only for images of 8x8"),
        ("rded", ["patches.grid=3"], "3 cells do not divide a side of 8 pixels"),
        ("rded", ["patches.pool=1"], "has 1 images to choose from, of 133, fewer than the 2"),
        ("rded", ["patches.score=el2n"], "does not hold how hard each training image was"),
        ("cim", ["init=noise"], "start from noise have no real images to be paired with"),
        ("cim", ["engine.mask.of=cam"], "the mask is of whole images, and these are decoded into several"),
    ],
)
def test_bad_input_is_refused_before_the_run(
    tmp_path: Path, teacher: Callable[[int], Path], method: str, overrides: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        made(tmp_path / "set.h5", method, teacher(8), *overrides)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_no_notice_says_that_images_are_repeated(tmp_path: Path, teacher: Callable[[int], Path]) -> None:
    said: list[str] = []
    made(tmp_path / "set.h5", "cim", teacher(8), iterations=0, callbacks=[Told(notify=said.append)])
    assert not [each for each in said if "repeated" in each]


def test_methods_that_match_with_trained_networks_may_start_from_patches(tmp_path: Path, pool: Path) -> None:
    told: dict[str, Any] = {"dataset": "digits", "method": "ncfm", "ipc": 2, "network": "convnet2-w6"}
    told |= {"experts": pool, "init": "patches", "iterations": 0, "device": "cpu"}
    dsdistill.distill(tmp_path / "set.h5", **told, overrides=[*PLAIN, "multi_formation.factor=1"])
    assert set_file.read(tmp_path / "set.h5").images.shape == (20, 1, 8, 8)
    with pytest.raises(UserError, match=r"use an engine of kind decoupled, or set patches\.keep=confidence"):
        dsdistill.distill(tmp_path / "cam.h5", **told, overrides=[*PLAIN, "patches.keep=cam"])
