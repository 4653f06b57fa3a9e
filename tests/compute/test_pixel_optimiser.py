"""Stepping: all classes together is torch's optimiser, per class is torch's optimiser once per class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dsdistill.compute.config import OptimiserConfig
from dsdistill.compute.pixel_optimiser import (
    JointOptimiser,
    PerClassOptimiser,
    PixelOptimiser,
    make_pixel_optimiser,
)
from dsdistill.config.validation import validate
from dsdistill.errors import UserError

CONFIGS = {
    "sgd": OptimiserConfig(lr=0.05, momentum=0.5),
    "heavy": OptimiserConfig(lr=0.01, momentum=1.0),
    "plain": OptimiserConfig(lr=0.05, momentum=0.0),
    "decay": OptimiserConfig(lr=0.05, momentum=0.5, weight_decay=0.2),
    "plain decay": OptimiserConfig(lr=0.05, momentum=0.0, weight_decay=0.2),
    "adamw": OptimiserConfig(kind="adamw", lr=0.05, weight_decay=0.2),
    "quick": OptimiserConfig(kind="adamw", lr=0.05, betas=(0.5, 0.7), eps=1e-3),
    "memoryless": OptimiserConfig(kind="adamw", lr=0.05, betas=(0.0, 0.0)),
}
IPC, PASSES = 2, 6


def per_class(config: OptimiserConfig) -> OptimiserConfig:
    return OptimiserConfig(**(vars(config) | {"updates": "per-class"}))


def start(classes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(classes)
    images = torch.randn(classes * IPC, 1, 3, 3, generator=generator, dtype=torch.float64)
    return images.to(dtype).requires_grad_()


def loss(images: Tensor, label: int, number: int) -> Tensor:
    """A loss of one class's images whose gradient depends on where they are; another one in every pass."""
    own = images[label * IPC : (label + 1) * IPC]
    target = torch.linspace(-1, 1, own.numel(), dtype=own.dtype).view_as(own) * (1 + label % 5)
    return ((own.tanh() - target).pow(4) * (1 + 0.3 * number)).sum() + (own.sin() * own.roll(1)).sum()


def torch_optimiser(config: OptimiserConfig, images: Tensor) -> torch.optim.Optimizer:
    if config.kind == "sgd":
        return torch.optim.SGD(
            [images], config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(
        [images], config.lr, config.betas, config.eps, weight_decay=config.weight_decay, fused=False
    )


def literal(config: OptimiserConfig, classes: int) -> Tensor:
    """Backward and step once per class on one shared parameter."""
    images = start(classes)
    optimiser = torch_optimiser(config, images)
    for number in range(PASSES):
        for label in range(classes):
            optimiser.zero_grad()
            loss(images, label, number).backward()
            optimiser.step()
    return images.detach()


def run(stepper: PixelOptimiser, images: Tensor, classes: int, passes: range = range(PASSES)) -> Tensor:
    for number in passes:
        stepper.zero_grad()
        stepper.prepare()
        torch.stack([loss(images, label, number) for label in range(classes)]).sum().backward()
        stepper.step()
    return images.detach()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("classes", [1, 3, 5])
def test_per_class_is_a_step_per_class(name: str, classes: int) -> None:
    images = start(classes)
    stepper = make_pixel_optimiser(per_class(CONFIGS[name]), {"images": images}, classes)
    assert isinstance(stepper, PerClassOptimiser)
    expected = literal(CONFIGS[name], classes)
    assert_close(run(stepper, images, classes), expected, rtol=1e-12, atol=1e-14)
    assert (images - start(classes)).abs().max() > 0.05


@pytest.mark.parametrize("name", CONFIGS)
def test_classes_may_have_rows_of_their_own_number(name: str) -> None:
    """Each row is stepped as if every class had as many."""
    counts, config = (1, 2, 1), per_class(CONFIGS[name])
    kept = torch.tensor([0, 2, 3, 4])  # of two rows of each of three classes
    target = torch.linspace(-1, 1, 6, dtype=torch.float64).view(6, 1, 1, 1)

    def stepped(stepper: PixelOptimiser, images: Tensor, goal: Tensor) -> Tensor:
        for number in range(PASSES):
            stepper.zero_grad()
            stepper.prepare()
            ((images.tanh() - goal).pow(4) * (1 + 0.3 * number)).sum().backward()
            stepper.step()
        return images.detach()

    every = start(3)
    few = every.detach()[kept].clone().requires_grad_()
    expected = stepped(make_pixel_optimiser(config, {"images": every}, 3), every, target)
    found = stepped(make_pixel_optimiser(config, {"images": few}, 3, counts), few, target[kept])
    assert_close(found, expected[kept], rtol=1e-12, atol=1e-14)
    same, again = start(3), start(3)
    by_counts = make_pixel_optimiser(config, {"images": same}, 3, (2, 2, 2))
    plain = make_pixel_optimiser(config, {"images": again}, 3)
    assert torch.equal(run(by_counts, same, 3), run(plain, again, 3))
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in (by_counts, plain)]
    assert shapes[0] == shapes[1]  # of earlier checkpoints too


@pytest.mark.parametrize("name", ["decay", "adamw"])
def test_float32_with_many_classes(name: str) -> None:
    images = start(40, torch.float32)
    stepper = make_pixel_optimiser(per_class(CONFIGS[name]), {"images": images}, 40)
    assert_close(run(stepper, images, 40).double(), literal(CONFIGS[name], 40), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_adamw_stays_finite_where_averages_vanish() -> None:
    classes = 1500  # 0.9^1500 is 0 in float32
    images = start(classes, torch.float32)
    before = images.detach().clone()
    config = OptimiserConfig(kind="adamw", lr=0.01, updates="per-class")
    stepper = make_pixel_optimiser(config, {"images": images}, classes)
    for gradient in (torch.zeros_like(images), torch.ones_like(images), torch.zeros_like(images)):
        stepper.prepare()
        images.grad = gradient
        stepper.step()
        assert images.isfinite().all()
        assert torch.equal(images, before) == (stepper.state_dict()["taken"] == classes)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("classes", [1, 3])
def test_together_is_a_step_of_torch(name: str, classes: int) -> None:
    config, images, expected = CONFIGS[name], start(classes), start(classes)
    optimiser = torch_optimiser(config, expected)
    for number in range(PASSES):
        optimiser.zero_grad()
        torch.stack([loss(expected, label, number) for label in range(classes)]).sum().backward()
        optimiser.step()
    stepper = make_pixel_optimiser(config, {"images": images}, classes)
    assert isinstance(stepper, JointOptimiser)
    assert_close(run(stepper, images, classes), expected.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["sgd", "decay", "adamw"])
def test_one_step_for_all_classes_is_another_method(name: str) -> None:
    images = start(3)
    together = run(make_pixel_optimiser(CONFIGS[name], {"images": images}, 3), images, 3)
    assert (together - literal(CONFIGS[name], 3)).abs().max() > 1e-2


def test_a_gradient_evaluated_where_the_pass_began_is_another_method() -> None:
    images, shown = start(3), start(3)
    config = per_class(CONFIGS["adamw"])
    stepper = make_pixel_optimiser(config, {"images": images}, 3)
    for number in range(PASSES):
        with torch.no_grad():
            shown.copy_(images)
        shown.grad = None
        torch.stack([loss(shown, label, number) for label in range(3)]).sum().backward()
        stepper.prepare()
        images.grad = shown.grad
        stepper.step()
    assert (images - literal(config, 3)).abs().max() > 1e-3


def test_per_class_of_several_parameters() -> None:
    """Each is stepped as if alone; one that a loss leaves out moves on as with a gradient of zero."""
    images, labels = start(3), torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    config = per_class(CONFIGS["adamw"])
    stepper = make_pixel_optimiser(config, {"images": images, "labels.logits": labels}, 3)
    expected = literal(config, 3)
    assert_close(run(stepper, images, 3), expected, rtol=1e-12, atol=1e-14)
    decayed = (1 - config.lr * config.weight_decay) ** (3 * PASSES)
    assert_close(labels.detach(), torch.full_like(labels, decayed))


@pytest.mark.parametrize("name", ["sgd", "decay", "adamw"])
@pytest.mark.parametrize("stepping", ["joint", "per-class"])
@pytest.mark.parametrize("split", [0, 2])
def test_state_continues_bit_by_bit(name: str, stepping: str, split: int) -> None:
    config = OptimiserConfig(**(vars(CONFIGS[name]) | {"updates": stepping}))
    whole, first, second = start(3), start(3), start(3)
    run(make_pixel_optimiser(config, {"images": whole}, 3), whole, 3)
    stopped = make_pixel_optimiser(config, {"images": first}, 3)
    second.data.copy_(run(stopped, first, 3, range(split)))
    state = {key: value.clone() for key, value in stopped.state_dict().items()}
    resumed = make_pixel_optimiser(config, {"images": second}, 3)
    resumed.load_state_dict(state)
    assert torch.equal(run(resumed, second, 3, range(split, PASSES)), whole)
    kept = stopped.state_dict()
    assert kept.keys() == state.keys()
    assert all(torch.equal(kept[key], state[key]) for key in state)
    assert all(name.startswith("images.") or name == "taken" for name in state)


def test_a_used_stepper_forgets_what_it_did_when_it_loads() -> None:
    for stepping in ("joint", "per-class"):
        config = OptimiserConfig(lr=0.05, updates=stepping)  # type: ignore[arg-type]
        images, fresh = start(3), start(3)
        stepper = make_pixel_optimiser(config, {"images": images}, 3)
        state = {key: value.clone() for key, value in stepper.state_dict().items()}
        run(stepper, images, 3, range(2))
        stepper.load_state_dict(state)
        with torch.no_grad():
            images.copy_(start(3))
        expected = run(make_pixel_optimiser(config, {"images": fresh}, 3), fresh, 3)
        assert torch.equal(run(stepper, images, 3), expected)


def test_parameters_that_do_not_divide_among_classes() -> None:
    config = OptimiserConfig(updates="per-class")
    for parameter in (torch.zeros(7, 2), torch.tensor(0.1)):
        with pytest.raises(UserError, match="does not divide among 3 classes; use optimiser"):
            make_pixel_optimiser(config, {"images": start(3), "rate": parameter}, 3)
    with pytest.raises(UserError, match="does not divide among 3 classes"):
        make_pixel_optimiser(config, {"images": start(3)}, 3, (1, 2, 2))


def told(table: Mapping[str, Any]) -> OptimiserConfig:
    known = [field.name for field in dataclasses.fields(OptimiserConfig)]
    return validate(OptimiserConfig, table, "option", known)


def test_configs_from_tables() -> None:
    assert told({}) == OptimiserConfig(kind="sgd", lr=1.0, momentum=0.5, updates="joint")
    assert told({"kind": "adamw", "betas": [0.8, 0.9]}).betas == (0.8, 0.9)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"kind": "adam"}, "'kind' is 'adam': input should be 'sgd', 'adamw' or 'lamb'"),
        ({"updates": "per class"}, "'updates' is 'per class': input should be 'joint' or 'per-class'"),
        ({"lr": -1}, "'lr' is -1"),
        ({"betas": [0.9, 1.0]}, "'betas.1' is 1.0: input should be less than 1"),
        ({"betas": [0.9]}, "betas"),
        ({"eps": 0}, "'eps' is 0: input should be greater than 0"),
        ({"weight_decay": -0.1}, "'weight_decay' is -0.1"),
        ({"clamp_every": -1}, "'clamp_every' is -1"),
        ({"ema": 1.0}, "'ema' is 1.0: input should be less than 1"),
        ({"ema": -0.1}, "'ema' is -0.1"),
        ({"weight_decoy": 0.1}, "unknown option 'weight_decoy'; did you mean 'weight_decay'"),
    ],
)
def test_configs_that_are_wrong(table: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        told(table)
