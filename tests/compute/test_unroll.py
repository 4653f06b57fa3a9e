"""A student's steps walked back against its unrolled graph, in float64."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.unroll import Case, augment
from tests.reference.trajectory import matching_loss, step_loss


def check(case: Case, momentum: float = 0.0, between: int = 0, last: int = 0) -> None:
    goals = {len(case.batches): (1.0, case.goal)} | ({between: (0.5, case.between)} if between else {})
    expected = case.unrolled(momentum, len(case.batches) - last if last else 0)
    loss = matching_loss(expected, goals)
    learned = [case.images, case.lr, *([case.targets] if case.targets.requires_grad else [])]
    gradients = torch.autograd.grad(loss, learned)

    path = case.student.unroll(case.start, case.lr, momentum)
    for found, theirs in zip(path, expected, strict=True):
        torch.testing.assert_close(found, theirs.detach(), rtol=1e-10, atol=1e-12)
    cotangents = {
        step: 2 * weight * (path[step] - goal) / (case.start - goal).square().sum()
        for step, (weight, goal) in goals.items()
    }
    slopes = case.student.adjoint(path, cotangents, case.lr, momentum, last=last)
    ours = [slopes.images, slopes.lr, *([slopes.labels] if slopes.labels is not None else [])]
    assert len(ours) == len(gradients)
    for found, theirs in zip(ours, gradients, strict=True):
        assert float(theirs.abs().max()) > 0
        torch.testing.assert_close(found, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("soft", [False, True])
def test_the_gradient_is_that_of_the_unrolled_steps(steps: int, momentum: float, soft: bool) -> None:
    check(Case(steps, soft), momentum)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_weights_between_may_be_matched_too(momentum: float) -> None:
    check(Case(5, True), momentum, between=3)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("last", [1, 2, 4])
def test_the_way_back_may_end_early(momentum: float, last: int) -> None:
    check(Case(5, True), momentum, last=last)


def test_the_loss_of_a_step_may_be_weighed() -> None:
    check(Case(4, False, weight=1.7), 0.5)


@pytest.mark.parametrize("network", ["convnet2-w4-batch", "mlp", "convnet2-w4-group"])
def test_other_networks(network: str) -> None:
    check(Case(3, True, network), 0.5)


def test_small_passes_change_nothing() -> None:
    check(Case(3, False, chunk=1), 0.5)


def test_truncated_is_the_formula_of_tesla() -> None:
    """Cui et al. 2023, eq. 8: (2/Δ) ∂/∂x_i [(β (θ* - θ_0) + β² G)ᵀ g_i] with every θ_i held constant."""
    case = Case(4, False)
    path = case.student.unroll(case.start, case.lr)
    delta = (case.start - case.goal).square().sum()
    cotangents = {4: 2 * (path[4] - case.goal) / delta}
    found = case.student.adjoint(path, cotangents, case.lr, truncated=True)

    lr, expected, total = case.lr.detach(), torch.zeros_like(found.images), torch.zeros_like(case.start)
    gradients = []
    for step, rows in enumerate(case.batches):
        weights = path[step].clone().requires_grad_()
        loss = step_loss(case.network, weights, augment(step, case.images[rows]), case.targets[rows])
        gradients.append(torch.autograd.grad(loss, weights, create_graph=True)[0])
        total += gradients[-1].detach()
    held = lr * (case.goal - case.start) + lr**2 * total
    for gradient in gradients:
        expected += 2 / delta * torch.autograd.grad(held @ gradient, case.images)[0]
    torch.testing.assert_close(found.images, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.lr, -2 / delta * (path[4] - case.goal) @ total)
    exact = case.student.adjoint(path, cotangents, case.lr)
    assert not torch.allclose(exact.images, found.images, rtol=1e-3)


def test_what_a_student_learns_from_gets_no_graph() -> None:
    case = Case(2, True)
    path = case.student.unroll(case.start, case.lr)
    assert not any(weights.requires_grad for weights in path)
    slopes = case.student.adjoint(path, {2: torch.ones_like(case.start)}, case.lr)
    assert slopes.labels is not None
    assert not any(each.requires_grad for each in (slopes.images, slopes.labels, slopes.lr))
