"""The loss of Barlow Twins, against a loop."""

from __future__ import annotations

import torch
from torch.nn.functional import batch_norm

from dsdistill.objectives.twins import barlow_twins, cross_correlation
from tests.reference import twins as reference


def pair(count: int = 5, width: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, count, width, dtype=torch.float64, generator=generator) * 3 + 1
    return first.requires_grad_(), second.requires_grad_()


def test_loss_and_gradient_are_those_of_a_loop() -> None:
    for weight in (0.0051, 0.5):
        first, second = pair()
        ours = barlow_twins(first, second, weight)
        naive = reference.barlow_twins(first, second, weight)
        torch.testing.assert_close(ours, naive, rtol=1e-12, atol=1e-12)
        gradients = (torch.autograd.grad(loss, (first, second)) for loss in (ours, naive))
        for mine, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-12)


def test_loss_is_that_of_normalised_batches() -> None:
    """Algorithm 1 of the paper; lightly 1.6.0 has it, too, and differs by 4e-6 from its epsilon of 1e-5."""
    first, second = pair()
    a, b = (batch_norm(each, None, None, training=True, eps=1e-12) for each in (first, second))
    differences = (a.T @ b / len(a) - torch.eye(a.shape[1])).square()
    weights = torch.full_like(differences, 0.0051).fill_diagonal_(1.0)
    torch.testing.assert_close(barlow_twins(first, second), (weights * differences).sum())


def test_the_weight_is_the_papers() -> None:
    assert barlow_twins(*pair()) == barlow_twins(*pair(), off_diagonal=0.0051)


def test_scale_and_place_of_a_number_do_not_matter() -> None:
    first, second = pair()
    scaled = first * torch.tensor([1.0, 5.0, 0.1, 2.0]) + torch.tensor([3.0, -1.0, 0.0, 9.0])
    torch.testing.assert_close(cross_correlation(scaled, second), cross_correlation(first, second))


def test_a_number_that_never_varies_has_a_finite_gradient() -> None:
    first, second = (each.detach().clone() for each in pair())
    first[:, 1] = 2.0
    first.requires_grad_()
    barlow_twins(first, second).backward()
    assert first.grad is not None
    assert first.grad.isfinite().all()
