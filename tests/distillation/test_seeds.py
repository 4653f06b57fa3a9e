"""One seed decides a distillation: where it begins, what is learned besides, and every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

import dsdistill
from dsdistill.data import catalog
from dsdistill.distillation import assembly
from dsdistill.distillation import config as configs
from dsdistill.storage import set_file
from tests.conftest import THREADS, TINY
from tests.helpers.data import pixels
from tests.helpers.marks import slow_but_first

SEEDS = (0, 0, 1)


def distilled(folder: Path, *overrides: str, **options: Any) -> list[Tensor]:
    """Distil once with each seed; return the images."""
    found = []
    for turn, seed in enumerate(SEEDS):
        output = folder / f"{turn}.h5"
        dsdistill.distill(output, **TINY | options, seed=seed, overrides=[THREADS, *overrides])
        assert set_file.read(output).attributes["seed"] == seed
        found.append(set_file.read(output).images)
    return found


def check(first: Tensor, again: Tensor, other: Tensor) -> None:
    """Check that two of the same seed are equal, and one of another is not."""
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.slow
@pytest.mark.parametrize("lr", [0.0, 10.0])
def test_a_run_is_that_of_its_seed(tmp_path: Path, lr: float) -> None:
    check(*distilled(tmp_path, f"optimiser.lr={lr}"))


@pytest.mark.parametrize("method", slow_but_first(["dm", "dsa"]))
def test_steps_from_one_start_are_those_of_the_seed(tmp_path: Path, method: str) -> None:
    """It is the only image of each class; in tiles, lest it be matched with itself."""
    images, labels = pixels(2, 8, 8), np.arange(2)
    np.savez(tmp_path / "two.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    told = {"dataset": f"npz:{tmp_path / 'two.npz'}", "method": method}
    start, _, same = distilled(tmp_path, "multi_formation.factor=2", "optimiser.lr=0.0", **told)
    assert torch.equal(start, same)
    (tmp_path / "stepped").mkdir()
    check(*distilled(tmp_path / "stepped", "multi_formation.factor=2", **told))


def test_what_is_learned_besides_begins_by_the_seed() -> None:
    def adversary(seed: int) -> Tensor:
        given = {"data": {"name": "digits"}, "ipc": 1, "network": "convnet2-w8", "seed": seed}
        points = ["engine.discrepancy.kind=characteristic", "engine.discrepancy.sampler=learned"]
        told = configs.resolve(given, [*points, "compute.compile=false"])
        made = assembly.assemble(told, *catalog.load(told.data, "train"), torch.device("cpu"), print)
        assert made.synthetic.adversary is not None
        return parameters_to_vector(made.synthetic.adversary.parameters()).detach()

    check(*map(adversary, SEEDS))
