"""How experts are trained: to flat minima, by a loss held back, with a penalty, restarting the momentum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from dsdistill.compute.learner import Learner
from dsdistill.experts.config import ExpertConfig, resolve
from dsdistill.experts.objective import Objective, TrainingBatch, smoothed
from dsdistill.experts.trainer import Trainer
from dsdistill.networks import build_network
from dsdistill.seeding import forked, generator
from tests.helpers.experts import CPU, toys, trained
from tests.helpers.networks import images
from tests.reference import gsam

SMOOTH = ("ramp_from=0.5", "ramp_epochs=2", "gradient_penalty=2.0")


def config(*overrides: str, **options: Any) -> ExpertConfig:
    plain = ["compute.threads=1", "compute.compile=false", "compute.precision=fp32"]
    given = {"recipe": "mtt", "data": {"name": "digits"}, "network": "convnet2-w6", **options}
    return resolve(given, [*plain, *overrides])


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def naive(told: ExpertConfig) -> Tensor:
    """Return the weights of expert 1 of the toys, by the equations."""
    real = toys()[1]
    with forked(told.seed, "experts-init", 1):
        model = build_network(told.network, 1, 8, 3)
    weights = list(model.parameters())
    momentum = [torch.zeros_like(weight) for weight in weights]
    augmentation = told.augmentation.build(mirror=True)
    pixels = (real.images.float() / 255 - 0.5) / 0.25
    for epoch in range(told.epochs):
        if told.drop_restarts and epoch == told.epochs // 2:
            momentum = [torch.zeros_like(weight) for weight in weights]
        lr = told.lr * (told.drop_factor if told.drop_at and epoch >= told.epochs // 2 else 1)
        factor = min(1.0, told.ramp_from + (1 - told.ramp_from) * epoch / max(told.ramp_epochs, 1))
        order = torch.randperm(50, generator=generator(told.seed, "experts", 1, epoch))
        for batch, rows in enumerate(order.split(told.batch_size)):
            stream = generator(told.seed, "experts-augment", 1, epoch, batch)
            drawn = augmentation.draw(len(rows), 8, stream, shared_operator=True)
            seen = TrainingBatch(augmentation(pixels[rows], drawn), real.labels[rows], pixels[rows])
            gradient = partial(slopes, model, seen, factor, told.gradient_penalty)
            if told.sharpness.rho:
                steps = gsam.direction(weights, gradient, told.sharpness.rho, told.sharpness.alpha)
            else:
                steps = gradient(weights)
            with torch.no_grad():
                for weight, moving, step in zip(weights, momentum, steps, strict=True):
                    moving *= told.momentum
                    moving += step + told.weight_decay * weight
                    weight -= lr * moving
    return flat(weights)


def slopes(
    model: nn.Module, batch: TrainingBatch, factor: float, penalty: float, at: Sequence[Tensor]
) -> list[Tensor]:
    """Return the gradient of factor · cross-entropy + penalty · mean (‖h‖ - 1)² at some weights."""
    values = [value.detach().requires_grad_() for value in at]
    named = dict(zip(dict(model.named_parameters()), values, strict=True))
    loss = factor * F.cross_entropy(functional_call(model, named, (batch.images,)), batch.targets)
    if penalty:
        pixels = batch.plain.clone().requires_grad_()
        total = functional_call(model, named, (pixels,)).sum()
        (slope,) = torch.autograd.grad(total, pixels, create_graph=True)
        loss = loss + penalty * ((slope.square().sum(1).sqrt() - 1) ** 2).mean()
    return list(torch.autograd.grad(loss, values))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("sharpness.rho=0.5", "sharpness.alpha=0.3"),
        ("sharpness.rho=2.0", "sharpness.alpha=1.0", "momentum=0.9", "weight_decay=0.001"),
        (*SMOOTH, "momentum=0.9", "weight_decay=0.001"),
        ("drop_at=[0.5]", "drop_factor=0.6", "drop_restarts=true", "momentum=0.9"),
        (*SMOOTH, "sharpness.rho=0.5", "sharpness.alpha=0.3"),
    ],
)
def test_training_follows_the_equations(options: tuple[str, ...]) -> None:
    chosen = config(*options, epochs=4, batch_size=16, seed=3)
    expected = naive(chosen)
    found = trained(chosen, 1, *toys())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6)
    without = naive(config(epochs=4, batch_size=16, seed=3))
    assert float((found - expected).norm()) < 0.01 * float((without - expected).norm())


def objective(
    *options: str, network: str = "convnet2-w6", **more: Any
) -> tuple[Objective, nn.Module, TrainingBatch]:
    with forked(0, "network"):
        model = build_network(network, 1, 8, 3).train()
    chosen = config(*options, **more)
    x = images(1, 8, 12)
    return Objective(Learner(model, 8, CPU), chosen), model, TrainingBatch(x, torch.arange(12) % 3, x.flip(0))


def test_weights_stay_and_statistics_move_once() -> None:
    once, plain, batch = objective(network="convnet2-w6-batch")
    twice, flattened, _ = objective("sharpness.rho=2.0", network="convnet2-w6-batch")
    before = flat(list(flattened.parameters()))
    assert torch.equal(once.backward(batch, 0), twice.backward(batch, 0))
    assert torch.equal(flat(list(flattened.parameters())), before)
    moved = dict(plain.named_buffers())
    assert moved["blocks.0.norm.running_mean"].any()
    assert int(moved["blocks.0.norm.num_batches_tracked"]) == 1
    for name, value in flattened.named_buffers():
        assert torch.equal(value, moved[name]), name
    gradients = [flat([weight.grad for weight in model.parameters()]) for model in (plain, flattened)]
    assert not torch.allclose(*gradients, rtol=1e-3)


def test_without_options_it_is_the_gradient_of_the_cross_entropy() -> None:
    found, model, batch = objective("sharpness.alpha=1.0")
    loss = found.backward(batch, 0)
    expected = F.cross_entropy(model(batch.images), batch.targets)
    assert torch.equal(loss, expected.detach())
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    assert torch.equal(flat(gradients), flat([weight.grad for weight in model.parameters()]))
    assert not loss.requires_grad


def test_the_loss_is_that_of_the_weights_with_all_terms() -> None:
    values = {
        options: float(objective(*options)[0].backward(objective()[2], 0))
        for options in ((), ("ramp_from=0.5", "ramp_epochs=2"), ("gradient_penalty=1.0",), SMOOTH)
    }
    plain, ramped, penalised, smooth = values.values()
    assert ramped == pytest.approx(plain / 2)
    assert smooth == pytest.approx(plain / 2 + 2 * (penalised - plain))
    assert penalised > plain
    sharp = objective(*SMOOTH, "sharpness.rho=1.0")[0].backward(objective()[2], 0)
    assert float(sharp) == smooth


def test_parameters_that_the_loss_does_not_reach_are_left_out() -> None:
    found, model, batch = objective("sharpness.rho=1.0", "sharpness.alpha=0.3")
    model.spare = nn.Parameter(torch.ones(2))
    found.backward(batch, 0)
    assert model.spare.grad is None
    assert torch.equal(model.spare, torch.ones(2))
    assert model.classifier.weight.grad.any()


@pytest.mark.parametrize("options", [("sharpness.rho=1.0",), SMOOTH])
def test_timing_changes_no_weights(options: tuple[str, ...]) -> None:
    trainer = Trainer(config(*options), *toys(), CPU, print)
    trainer.initialise(0)
    before = flat(list(trainer.network.parameters()))
    assert trainer.pace().epoch > 0
    assert torch.equal(flat(list(trainer.network.parameters())), before)
    assert all(weight.grad is None for weight in trainer.network.parameters())


def test_momentum_begins_anew_at_a_drop_where_asked() -> None:
    def momenta(restarts: str) -> list[Tensor]:
        chosen = config("momentum=0.9", "drop_at=[0.5]", f"drop_restarts={restarts}", batch_size=50, epochs=2)
        trainer = Trainer(chosen, *toys(), CPU, print)
        trainer.initialise(0)
        found = []
        for epoch in range(2):
            trainer.train_epoch(0, epoch, [])
            state = trainer.state_dict()
            found.append(flat([value for name, value in state.items() if name.startswith("momentum.")]))
        return found

    (first, kept), (same, renewed) = momenta("false"), momenta("true")
    assert torch.equal(first, same)
    torch.testing.assert_close(kept - renewed, 0.9 * first)  # one step on: b = 0.9 b + g, or g alone


@pytest.mark.parametrize("amount", [0.1, 0.75])
def test_smoothed_targets_are_those_of_torch(amount: float) -> None:
    logits, labels = images(1, 3, 4).flatten(1), torch.tensor([0, 8, 3, 3])
    expected = F.cross_entropy(logits, labels, label_smoothing=amount)
    torch.testing.assert_close(F.cross_entropy(logits, smoothed(labels, 9, amount)), expected)
    mixed = (0.25 * F.one_hot(labels, 9) + 0.75 * F.one_hot(labels.flip(0), 9)).float()
    expected = F.cross_entropy(logits, mixed, label_smoothing=amount)
    torch.testing.assert_close(F.cross_entropy(logits, smoothed(mixed, 9, amount)), expected)


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_a_training_smooths_its_targets(cutmix: float) -> None:
    """The loss of an epoch without a step to speak of is that of the initial weights and smoothed targets."""
    losses = []
    for amount in (0.0, 0.5):
        trainer = Trainer(config(lr=1e-9, label_smoothing=amount, cutmix=cutmix), *toys(), CPU, print)
        trainer.initialise(0)
        losses.append(trainer.train_epoch(0, 0, []))
        batches = list(trainer._epoch_batches(0, 0))
        targets = torch.cat([batch.targets for _, batch in batches])
        if amount:
            assert targets.min() == pytest.approx(amount / 3)
            torch.testing.assert_close(targets.sum(1), torch.ones(len(targets)))
    assert losses[0] != losses[1]
