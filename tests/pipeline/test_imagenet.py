"""The whole path on ImageNet: published weights as teacher, recovery, views, evaluation, estimates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dsdistill
from dsdistill.data.constants import subset_wnids
from tests.helpers.data import pixels, save
from tests.helpers.published import MODEL, empty_cache, stored_model

pytestmark = pytest.mark.usefixtures("data_home")

SIDE = 64
"""At 224 pixels the path is the same, and a step takes some twelve times as long."""


@pytest.fixture
def imagenette(tmp_path: Path) -> Path:
    """Ten classes in ImageNet's folders, three pictures of each to train on and one to test."""
    for label, wnid in enumerate(subset_wnids("imagenette")):
        for part, count in (("train", 3), ("val", 1)):
            for number in range(count):
                noise = pixels(70, 90, 3, seed=10 * label + number) // 2
                tinted = (noise + np.uint8(12 * label)).astype(np.uint8)
                save(tmp_path / part / wnid / f"ILSVRC2012_{part}_{number:08d}.JPEG", tinted)
    return tmp_path


def options(root: Path) -> dict[str, Any]:
    return {
        "dataset": "imagenette",
        "root": root,
        "size": SIDE,
        "method": "sre2l",
        "ipc": 2,
        "network": MODEL,
        "experts": f"{MODEL}@DEFAULT",
        "device": "cpu",
    }


def test_from_a_librarys_weights_to_an_accuracy(
    imagenette: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_model(empty_cache(tmp_path / "hub", monkeypatch), monkeypatch)
    set_file, labelled = tmp_path / "set.h5", tmp_path / "labelled.h5"
    summary = dsdistill.distill(set_file, **options(imagenette), iterations=2)
    assert summary.images == 20
    assert summary.last_loss == pytest.approx(summary.last_loss)  # a number
    made = dsdistill.load(set_file, space="unit")
    assert made.images.shape == (20, 3, SIDE, SIDE)
    assert made.images.min() >= 0
    assert made.images.max() <= 1
    assert made.attributes["protocol"] == "fkd"
    dsdistill.label(set_file, labelled, teachers=f"{MODEL}@DEFAULT", views=2, batch_size=10)
    report = dsdistill.evaluate(
        labelled, root=imagenette, networks="resnet10-batch-w4", epochs=2, repeats=1, baselines=["random"]
    )
    regimes = {row.set: row.regime for row in report.rows}
    assert regimes["distilled"] == "SL"
    assert report.cost["label_bytes"] > 0


def test_a_dry_run_tells_hours_memory_and_the_bytes_of_labels(
    imagenette: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_model(empty_cache(tmp_path / "hub", monkeypatch), monkeypatch)
    estimate = dsdistill.dry_run(dsdistill.distill, tmp_path / "set.h5", **options(imagenette))
    assert estimate.amount == 4000
    assert estimate.seconds > 0
    assert estimate.memory_bytes is not None
    assert estimate.memory_bytes > 1e6
    # 300 epochs of 20 images: ten logits of two bytes, and 17 for crop, flip, partner and number.
    expected = (
        f"{300 * 20 * (2 * 10 + 17) / 1e3:.0f} KB once it is labelled, at most: 300 views of each image"
    )
    assert estimate.later["labels"].startswith(expected)
    assert not (tmp_path / "set.h5").exists()
