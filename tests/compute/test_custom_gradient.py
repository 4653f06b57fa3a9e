"""Values whose gradient is given rather than found."""

from __future__ import annotations

import pytest
import torch

from dsdistill.compute.custom_gradient import attach_gradients, settled


def test_gradients_are_the_slopes_times_what_arrives() -> None:
    x, y = torch.ones(2, 3, requires_grad=True), torch.ones(4, requires_grad=True)
    slopes = torch.arange(6.0).view(2, 3), torch.tensor([1.0, -1.0, 0.0, 2.0])
    value = attach_gradients(torch.tensor(5.0), (x, slopes[0]), (y, slopes[1]))
    assert value.item() == 5
    (value**2).backward()
    torch.testing.assert_close(x.grad, 10 * slopes[0])
    torch.testing.assert_close(y.grad, 10 * slopes[1])


def test_a_second_derivative_is_refused_and_not_made_up() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    value = attach_gradients(x.detach() ** 3, (x, 3 * x.detach() ** 2))
    (slope,) = torch.autograd.grad(value**2, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.backward()


def test_what_is_settled_does_not_see_what_changes_afterwards() -> None:
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    x, unused = (torch.tensor([1.0, -1.0], requires_grad=True) for _ in range(2))
    value = (weights @ x).square().sum()
    expected = 2 * weights.T @ (weights @ x.detach())
    found = settled(value, [x, unused])
    weights.zero_()
    assert found.item() == value.item() == 2
    (3 * found).backward()
    torch.testing.assert_close(x.grad, 3 * expected)
    assert unused.grad is None
