"""Every recipe of experts trains on a CUDA device, and has the host wait for it once an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import dsdistill
from dsdistill.config.presets import EXPERT_RECIPES
from dsdistill.experts import trainer as trainer_module
from dsdistill.experts.trainer import Trainer
from tests.helpers.marks import slow_if
from tests.helpers.on_device import BATCH, CONVNET, EAGER, images
from tests.helpers.stand_in import Wait, stand_in

NETWORKS = {"barlow-twins": BATCH, "el2n": BATCH, "teacher": BATCH}
SMALL: dict[str, Sequence[str]] = {
    "barlow-twins": ("twins.projector=[8,8]", "warmup_epochs=0"),
    "ast": ("ramp_epochs=0", "drop_at=[]"),
}
ALIKE = {"acc-dd", "dance", "datm", "mtt", "tgdd"}
"""Recipes that run the same lines as another one; in the slow tests."""

LOSS = "the mean loss of an epoch is read at its end"


@pytest.mark.parametrize("recipe", slow_if(EXPERT_RECIPES.names(), ALIKE))
def test_a_recipe_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    monkeypatch.setattr(trainer_module, "_TIMED_STEPS", 1)
    epochs: list[list[Wait]] = []
    train = Trainer.train_epoch
    options: dict[str, Any] = {"dataset": images(), "recipe": recipe, "count": 1, "epochs": 2}
    overrides = [*EAGER, "compute.cuda_graphs=false", "batch_size=12", *SMALL.get(recipe, ())]
    with stand_in() as device:

        def counted(trainer: Trainer, *arguments: Any) -> float:
            assert next(trainer.network.parameters()).is_cuda
            assert trainer.batches > 2
            with device.counting() as waits:
                loss = train(trainer, *arguments)
            epochs.append(waits)
            return loss

        monkeypatch.setattr(Trainer, "train_epoch", counted)
        experts = dsdistill.train_experts(
            tmp_path / "experts.h5",
            network=NETWORKS.get(recipe, CONVNET),
            device="cuda",
            overrides=overrides,
            **options,
        )
    assert experts.count == 1
    assert len(epochs) == 2
    for waits in epochs:
        assert len(waits) == len([LOSS]), list(map(str, waits))
