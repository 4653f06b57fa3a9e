"""LAMB against its equations, entry by entry."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dsdistill.compute.config import OptimiserConfig
from dsdistill.compute.lamb import Lamb
from dsdistill.compute.pixel_optimiser import make_pixel_optimiser
from dsdistill.errors import UserError
from tests.reference.regression import lamb_steps


def gradients(shape: tuple[int, ...], count: int = 4) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(5)
    return [torch.randn(shape, generator=stream, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_each_tensor_has_one_ratio(decay: float) -> None:
    starts = [torch.linspace(1, 5, 12, dtype=torch.float64).view(3, 4), torch.full((2,), 100.0).double()]
    parameters = [nn.Parameter(start.clone()) for start in starts]
    optimiser = Lamb(parameters, lr=0.1, eps=1e-3, weight_decay=decay)
    for slopes in zip(gradients((3, 4)), gradients((2,)), strict=True):
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.grad = slope
        optimiser.step()
    for parameter, start in zip(parameters, starts, strict=True):
        expected = lamb_steps(start, gradients(tuple(start.shape)), [0.1] * 4, 1e-3, decay)
        assert_close(parameter.data, expected, rtol=1e-12, atol=1e-12)


def test_a_tensor_of_zeros_steps_like_adam() -> None:
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    parameter.grad = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    Lamb([parameter], lr=0.1).step()
    assert_close(parameter.data, torch.tensor([-0.1, 0.1, 0.0]).double(), rtol=1e-5, atol=0)
    parameter.grad = None
    before = parameter.detach().clone()
    Lamb([parameter], lr=0.1).step()
    assert torch.equal(parameter, before)


def test_pixels_step_by_it_and_go_on_where_they_stopped() -> None:
    config = OptimiserConfig(kind="lamb", lr=0.1, eps=1e-6)
    whole, first = (nn.Parameter(torch.ones(2, 3).double()) for _ in range(2))
    one = make_pixel_optimiser(config, {"images": whole}, classes=2)
    other = make_pixel_optimiser(config, {"images": first}, classes=2)
    for number, slope in enumerate(gradients((2, 3))):
        whole.grad, first.grad = slope.clone(), slope.clone()
        one.step()
        if number == 2:
            state = copy.deepcopy(other.state_dict())
            other = make_pixel_optimiser(config, {"images": first}, classes=2)
            other.load_state_dict(state)
        other.step()
    assert torch.equal(whole, first)
    assert_close(
        whole.data,
        lamb_steps(torch.ones(2, 3).double(), gradients((2, 3)), [0.1] * 4, 1e-6),
        rtol=1e-12,
        atol=0,
    )


def test_steps_of_single_classes_are_refused() -> None:
    with pytest.raises(UserError, match=r"lamb steps all images by one trust ratio.*updates=joint"):
        OptimiserConfig(kind="lamb", updates="per-class")


@pytest.mark.parametrize(("schedule", "shares"), [("cosine", [1.0, 0.55, 0.1]), ("linear", [1.0, 0.55, 0.1])])
def test_a_schedule_ends_at_its_final_share(schedule: str, shares: list[float]) -> None:
    config = OptimiserConfig(kind="lamb", lr=2.0, schedule=schedule, final=0.1)  # type: ignore[arg-type]
    assert [config.rate(iteration, 10) for iteration in (0, 5, 10)] == pytest.approx(
        [2 * share for share in shares]
    )
    quarter = config.rate(2, 8) / 2
    assert quarter == pytest.approx(0.1 + 0.9 * ((1 + 0.5**0.5) / 2 if schedule == "cosine" else 0.75))
