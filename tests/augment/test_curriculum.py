"""The curriculum of CDA: the smallest share of a crop, from the whole image down to 0.08."""

from __future__ import annotations

import math

import pytest

from dsdistill.augment.batch_view import BatchViewConfig
from dsdistill.distillation import config as configs
from dsdistill.engines.decoupled import DecoupledEngine


@pytest.mark.parametrize("milestone", [1.0, 0.5])
def test_the_share_falls_along_half_a_cosine(milestone: float) -> None:
    view = BatchViewConfig(crop=(0.08, 1.0), curriculum="cosine", milestone=milestone)
    for iteration in range(100):
        done = min(1.0, iteration / (100 * milestone))
        expected = 0.08 + 0.92 * 0.5 * (1 + math.cos(math.pi * done))
        assert view.scale(iteration, 100) == (pytest.approx(expected), 1.0)


def test_the_other_curricula_are_a_line_and_a_step() -> None:
    line = BatchViewConfig(crop=(0.08, 1.0), curriculum="linear", milestone=0.5)
    assert [line.scale(t, 100)[0] for t in (0, 25, 50, 99)] == pytest.approx([1.0, 0.54, 0.08, 0.08])
    step = BatchViewConfig(crop=(0.08, 1.0), curriculum="step", milestone=0.5)
    assert [step.scale(t, 100)[0] for t in (0, 49, 50)] == pytest.approx([1.0, 1.0, 0.08])


@pytest.mark.parametrize(
    ("dataset", "lr", "weight", "iterations"),
    [("imagenet", 0.25, 0.01, 4000), ("tiny-imagenet", 0.4, 0.05, 4000), ("cifar100", 0.25, 0.01, 1000)],
)
def test_the_recipe_has_the_papers_settings(dataset: str, lr: float, weight: float, iterations: int) -> None:
    config = configs.resolve({"method": "cda", "ipc": 10, "data": {"name": dataset}})
    assert isinstance(config.engine, DecoupledEngine)
    assert (config.optimiser.lr, config.engine.alignment.weight, config.iterations) == (
        lr,
        weight,
        iterations,
    )
    assert config.engine.view.scale(0, iterations) == (1.0, 1.0)
