"""One set of several sizes is distilled once, loaded and evaluated at each; and DREAM's real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill

TINY: dict[str, Any] = {"dataset": "digits", "network": "convnet2-w4", "device": "cpu"}
FAST = ["engine.supply.samples=64", "engine.supply.updates_per_network=2", "compute.compile=false"]
METHODS = {
    "mdc": ["size_period=2"],
    "dream": [],
    "dm": ["engine.real_batches.kind=kmeans", "engine.real_batches.every=3", "engine.batch_real=32"],
}


def distilled(file: Path, method: str, iterations: int, **told: Any) -> torch.Tensor:
    fast = METHODS[method] + (FAST if method != "dm" else FAST[2:])
    dsdistill.distill(file, **TINY, method=method, ipc=5, iterations=iterations, overrides=fast, **told)
    return dsdistill.load(file, space="unit").images


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sizes") / "sizes.h5"
    distilled(path, "mdc", 5, options={"storage": "float32"})
    return path


def test_a_size_is_the_first_images_of_each_class(file: Path) -> None:
    whole = dsdistill.load(file)
    assert whole.attributes["sizes"] == "1,2,5"
    for ipc in (1, 2, 5):
        part = dsdistill.load(file, ipc=ipc)
        assert len(part) == 10 * ipc
        assert part.ipc == ipc
        first = [whole.images[whole.labels == label][:ipc] for label in range(10)]
        assert torch.equal(part.images, torch.cat(first))
    with pytest.raises(dsdistill.UserError, match="made for 1, 2 or 5 images of a class, not 3"):
        dsdistill.load(file, ipc=3)
    with pytest.raises(dsdistill.UserError, match="leave space, labels, decode and ipc out"):
        dsdistill.load(file, views=True, ipc=2)


def test_each_size_is_evaluated_for_itself(file: Path) -> None:
    told: dict[str, Any] = {"epochs": 1, "repeats": 1, "baselines": "random", "device": "cpu"}
    whole = dsdistill.evaluate(file, **told)
    part = dsdistill.evaluate(file, ipc=2, **told)
    assert [row.images for row in (*whole.rows, *part.rows)] == [50, 50, 20, 20]
    assert part.cost["image_bytes"] == pytest.approx(0.4 * whole.cost["image_bytes"], rel=0.05)
    again = dsdistill.evaluate(file, ipc=2, resume=True, **told)
    assert again.rows == part.rows
    assert dsdistill.evaluate(file, resume=True, **told).rows == whole.rows
    assert dsdistill.evaluate(file, ipc=5, resume=True, **told).rows == whole.rows
    assert dsdistill.evaluate(file, ipc=1, resume=True, save=False, **told).rows[0].images == 10


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_goes_on_bit_identically(method: str, tmp_path: Path) -> None:
    whole = distilled(tmp_path / "whole.h5", method, 5)

    def stop(entry: dict[str, Any]) -> None:
        if entry["iteration"] == 3:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        distilled(tmp_path / "part.h5", method, 5, callbacks=[stop])
    assert torch.equal(distilled(tmp_path / "part.h5", method, 5, resume=True), whole)
