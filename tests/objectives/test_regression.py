"""Ridge regression in closed form, against plain autograd through a solve and against differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dsdistill.errors import UserError
from dsdistill.objectives import regression
from dsdistill.objectives.regression import Form, centred_one_hot, product, ridge, ridge_weights, separation
from tests.reference.regression import regressed, separation_loop


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def data(images: int, features: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Features and answers that are learned, and features of queries."""
    support = (drawn(images, features) + 1).relu().to(dtype).requires_grad_()
    return (
        support,
        drawn(images, 3, seed=1, dtype=dtype).requires_grad_(),
        drawn(5, features, seed=2).to(dtype),
    )


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("form", ["auto", "dual", "primal"])
@pytest.mark.parametrize(("images", "features"), [(4, 9), (9, 4), (6, 6)])
def test_predictions_and_gradients_are_those_of_plain_autograd(
    images: int, features: int, form: Form, mean: bool, constant: bool
) -> None:
    support, answers, queries = data(images, features)
    expected = regressed(support, answers, queries, 0.01, mean, constant)
    wanted = torch.autograd.grad(expected.sin().sum(), [support, answers])
    penalty = ridge(support, 0.01, mean=mean, detached=constant)
    found = queries @ ridge_weights(support, answers, penalty, form=form)
    assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert_close(torch.autograd.grad(found.sin().sum(), [support, answers]), wanted, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("form", ["dual", "primal"])
def test_gradients_are_those_of_finite_differences(form: Form) -> None:
    support, answers, _ = data(3, 4)

    def weights(features: Tensor, targets: Tensor) -> Tensor:
        penalty = ridge(features, 0.1, mean=True, detached=False)
        return ridge_weights(features, targets, penalty, form=form)

    assert torch.autograd.gradcheck(weights, (support, answers))


def test_the_ridge_is_a_share_of_the_trace() -> None:
    features = drawn(4, 6).requires_grad_()
    trace = (features @ features.T).trace()
    assert_close(ridge(features, 0.5, mean=True, detached=False), trace / 8)
    assert_close(ridge(features, 0.5, mean=False, detached=False), trace / 2)
    assert ridge(features, 0.5, mean=False, detached=False).requires_grad
    assert not ridge(features, 0.5, mean=False, detached=True).requires_grad


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize(("images", "features"), [(6, 8), (8, 6)])
def test_blocks_in_a_wider_precision_give_the_solution_of_float64(
    monkeypatch: pytest.MonkeyPatch, block: int, images: int, features: int
) -> None:
    """Features are float32; the system is so near to singular that float32 would lose most digits."""
    monkeypatch.setattr(regression, "_BLOCK_VALUES", block)
    support, answers, queries = data(images, features, torch.float32)
    wide = support.detach().double().requires_grad_()
    expected = regressed(wide, answers.detach().double(), queries.double(), 1e-6, mean=True, constant=False)
    (wanted,) = torch.autograd.grad(expected.square().sum(), wide)
    penalty = ridge(support, 1e-6, mean=True, detached=False)
    found = queries @ ridge_weights(support, answers, penalty)
    assert found.dtype == torch.float32
    (gradient,) = torch.autograd.grad(found.square().sum(), support)
    assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
    assert_close(gradient, wanted.float(), rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def test_a_product_needs_no_gradient_that_nobody_asks_for() -> None:
    left, right = drawn(5, 2, dtype=torch.float32), drawn(5, 3, dtype=torch.float32).requires_grad_()
    found = product(left, right, torch.float64)
    assert found.dtype == torch.float64
    (gradient,) = torch.autograd.grad(found.sum(), right)
    assert_close(gradient, left.sum(1, keepdim=True).expand(5, 3))


def test_float32_solves_what_rounding_left_without_a_decomposition() -> None:
    """Equal images: the kernel has rank one, and a ridge of nearly 0 is below the rounding."""
    support = torch.ones(40, 1) * drawn(1, 30, dtype=torch.float32) * 30
    answers, penalty = torch.ones(40, 1), torch.tensor(1e-30)
    system = support @ support.T
    assert torch.linalg.cholesky_ex(system).info != 0
    found = support @ ridge_weights(support, answers, penalty, dtype=torch.float32, form="dual")
    assert_close(found, answers, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("images", "features"), [(2, 3), (3, 2)])
def test_a_network_that_has_died_predicts_nothing(images: int, features: int) -> None:
    support, answers = torch.zeros(images, features).requires_grad_(), torch.ones(images, 1)
    weights = ridge_weights(support, answers, ridge(support, 1e-6, mean=True, detached=False))
    assert not weights.any()
    assert torch.autograd.grad(weights.sum(), support)[0].isfinite().all()


def test_features_that_are_not_finite_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"no solution: the features are not finite.*engine\.ridge"):
        ridge_weights(torch.full((2, 3), torch.nan), torch.ones(2, 1), torch.tensor(1.0))


@pytest.mark.parametrize("classes", [2, 5])
def test_separation_is_that_of_a_loop(classes: int) -> None:
    labels = (drawn(7, classes) * (1 if classes == 2 else 0.3)).requires_grad_()
    expected = separation_loop(labels)
    assert_close(separation(labels), expected)
    assert_close(torch.autograd.grad(separation(labels), labels), torch.autograd.grad(expected, labels))
    assert 0 < float((torch.autograd.grad(separation(labels), labels)[0] == 0).all(1).sum()) < 7


def test_centred_labels_sum_to_nothing() -> None:
    labels = centred_one_hot(torch.tensor([2, 0]), 4, torch.float64)
    assert_close(labels.sum(1), torch.zeros(2, dtype=torch.float64))
    assert labels.argmax(1).tolist() == [2, 0]
    assert float(labels.max() - labels.min()) == 1
