"""The scores that a training records are those of a plain loop, and record no more than they should."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dsdistill
from dsdistill import UserError
from dsdistill.experts.config import ExpertConfig
from dsdistill.experts.trainer import EL2N, Trainer
from dsdistill.networks import build_network
from dsdistill.seeding import forked, generator
from dsdistill.storage.expert_file import ExpertFile
from tests.helpers.experts import CPU, PLAIN, told, toys, trained

NETWORK = "convnet2-w6-batch"


def recorded(config: ExpertConfig, expert: int = 1) -> Tensor:
    trainer = Trainer(config, *toys(), CPU, print)
    trainer.initialise(expert)
    for epoch in range(config.epochs):
        trainer.train_epoch(expert, epoch, [])
    return trainer.state_dict()[EL2N]


def error_norms(logits: Tensor, labels: Tensor) -> list[float]:
    """Return ‖softmax(logits) - one-hot label‖₂ of each image, number by number."""
    return [
        sum((share - (k == label)) ** 2 for k, share in enumerate(row)) ** 0.5
        for row, label in zip(logits.double().softmax(1).tolist(), labels.tolist(), strict=True)
    ]


def test_scores_are_those_of_a_plain_loop() -> None:
    """Of augmented images, in training mode, before each step, and over the first epochs alone."""
    config = told("mtt", NETWORK, epochs=3, record_el2n=2, batch_size=16, lr=0.1)
    real = toys()[1]
    with forked(config.seed, "experts-init", 1):
        network = build_network(NETWORK, 1, 8, 3)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    augmentation = config.augmentation.build(mirror=True)
    images = (real.images.float() / 255 - 0.5) / 0.25
    scores = [0.0] * len(real)
    for epoch in range(2):
        order = torch.randperm(len(real), generator=generator(config.seed, "experts", 1, epoch))
        for batch, rows in enumerate(order.split(16)):
            stream = generator(config.seed, "experts-augment", 1, epoch, batch)
            drawn = augmentation.draw(len(rows), 8, stream, shared_operator=True)
            logits = network(augmentation(images[rows], drawn))
            norms = error_norms(logits.detach(), real.labels[rows])
            for row, norm in zip(rows.tolist(), norms, strict=True):
                scores[row] += norm / 2
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits, real.labels[rows]).backward()
            optimiser.step()
    assert recorded(config).tolist() == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.5},
        {"sharpness": {"rho": 0.5}},
        {"gradient_penalty": 2.0, "ramp_from": 0.1, "ramp_epochs": 9},
    ],
)
def test_scores_do_not_depend_on_the_loss(options: dict[str, Any]) -> None:
    """In one batch the weights are the initial ones, whatever is minimised."""
    plain = told("mtt", NETWORK, epochs=1, record_el2n=1, batch_size=50)
    other = told("mtt", NETWORK, epochs=1, record_el2n=1, batch_size=50, **options)
    assert torch.equal(recorded(other), recorded(plain))


@pytest.mark.parametrize("options", [{}, {"sharpness": {"rho": 0.5}}, {"label_smoothing": 0.1}])
def test_weights_are_the_same_without_scores(options: dict[str, Any]) -> None:
    config = told("mtt", NETWORK, epochs=2, record_el2n=1, batch_size=16, **options)
    without = dataclasses.replace(config, record_el2n=0)
    assert torch.equal(trained(config, 1, *toys()), trained(without, 1, *toys()))


def test_all_epochs_are_averaged_where_there_are_fewer() -> None:
    both = told("mtt", NETWORK, epochs=2, record_el2n=2, batch_size=16)
    assert torch.equal(recorded(dataclasses.replace(both, record_el2n=10)), recorded(both))


def test_every_expert_starts_from_zero() -> None:
    config = told("mtt", NETWORK, epochs=1, record_el2n=1, batch_size=16)
    trainer = Trainer(config, *toys(), CPU, print)
    for expert in (0, 1):
        trainer.initialise(expert)
        trainer.train_epoch(expert, 0, [])
    assert torch.equal(trainer.state_dict()[EL2N], recorded(config, 1))
    assert EL2N not in Trainer(told("mtt"), *toys(), CPU, print).state_dict()


def test_what_cannot_be_scored_is_refused_in_one_sentence() -> None:
    for options, sentence in (
        ({"record_el2n": 1, "cutmix": 0.5}, "has no EL2N of its own: set cutmix=0"),
        ({"record_el2n": 1, "drop_last": True}, "set drop_last=false"),
        ({"record_el2n": 1, "epoch_batches": 3}, "and epoch_batches=0"),
    ):
        with pytest.raises(UserError, match=sentence):
            told("mtt", **options)


# Files ------------------------------------------------------------------------------------------------------


def train(output: Path, count: int = 1, record: int = 2, **options: Any) -> ExpertFile:
    real = toys()[1]
    data = (real.images, real.labels)
    common: dict[str, Any] = {"dataset": data, "recipe": "mtt", "network": NETWORK, "epochs": 3}
    overrides = [*PLAIN, f"record_el2n={record}", "keep=ends", "batch_size=16"]
    return dsdistill.train_experts(output, count=count, overrides=overrides, **{**common, **options})


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_a_killed_training_goes_on_to_the_same_scores(tmp_path: Path, stop_after: int) -> None:
    """It stops among the epochs that are recorded, after them, and in the second expert."""

    def stop(entry: dict[str, Any]) -> None:
        if entry["done"] == stop_after:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "stopped.h5", 2, callbacks=[stop])
    resumed, whole = train(tmp_path / "stopped.h5", 2, resume=True), train(tmp_path / "whole.h5", 2)
    for expert in range(2):
        assert torch.equal(resumed.el2n(expert), whole.el2n(expert))
    assert not torch.equal(whole.el2n(0), whole.el2n(1))


def test_experts_are_added_with_their_scores(tmp_path: Path) -> None:
    first = train(tmp_path / "pool.h5", 1).el2n(0)
    both = train(tmp_path / "pool.h5", 2)
    assert torch.equal(both.el2n(0), first)
    assert not torch.equal(both.el2n(1), first)
    with pytest.raises(UserError, match="experts with record_el2n = 2, and those asked for have 0"):
        train(tmp_path / "pool.h5", 3, record=0)
    with pytest.raises(UserError, match=r"does not hold how hard .* --recipe el2n"):
        train(tmp_path / "plain.h5", record=0).el2n(0)
