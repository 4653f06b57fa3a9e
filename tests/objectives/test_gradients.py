"""Distances between gradients: their values, their slopes, and the parameters they read."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from dsdistill import seeding
from dsdistill.errors import UserError
from dsdistill.objectives.gradients import Metric, distance, distance_and_grad, matched_parameters
from tests.helpers.networks import build
from tests.reference import gradient as reference

METRICS = get_args(Metric)
SHAPES = [(4, 3, 3, 3), (4,), (4, 2, 2), (5, 7), (5,)]  # convolution, bias, layer norm, classifier, bias


def gradients(name: str, shapes: list[tuple[int, ...]] = SHAPES) -> list[Tensor]:
    generator = seeding.generator(0, name)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def exact(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_distance_and_slope_equal_a_loop_over_channels(metric: Metric) -> None:
    ours, theirs = gradients("ours"), gradients("theirs")
    moving = [a.clone().requires_grad_() for a in ours]
    expected = reference.looped_distance(metric, moving, theirs)
    slopes = torch.autograd.grad(expected, moving, allow_unused=True, materialize_grads=True)
    value, slope = distance_and_grad(metric, ours, theirs)
    exact(value, expected.detach())
    for found, wanted in zip(slope, slopes, strict=True):
        exact(found, wanted)
    exact(reference.eager_distance(metric, ours, theirs), value)


@pytest.mark.parametrize("metric", METRICS)
def test_distance_is_differentiable_and_its_slope_has_no_graph(metric: Metric) -> None:
    ours, theirs = (
        [a.requires_grad_() for a in gradients("ours", SHAPES[:1])],
        gradients("theirs", SHAPES[:1]),
    )
    assert torch.autograd.gradcheck(lambda a: distance(metric, [a], theirs), ours)
    with torch.no_grad():
        value, slope = distance_and_grad(metric, ours, theirs)
    assert not value.requires_grad
    assert not slope[0].requires_grad
    exact(slope[0], torch.autograd.grad(distance(metric, ours, theirs), ours)[0])


def test_distances_by_hand() -> None:
    ours = [torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([1.0, 2.0])]
    theirs = [torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([0.0, 0.0])]
    expected = {
        "cosine": 0 + 1,  # parallel rows, orthogonal rows; the bias says nothing
        "squared": 1 + 4 + 1 + 4,
        "l1": 1 + 2 + 1 + 2,
        "l1_mean": (1 + 2) / 2 + 1 + 2,
        "cosine_whole": 1 - 25 / (31 * 29) ** 0.5,
    }
    assert set(expected) == set(METRICS)
    for metric, value in expected.items():
        assert distance(metric, ours, theirs).item() == pytest.approx(value, abs=1e-6)


def test_equal_gradients_leave_only_the_epsilon() -> None:
    ours = gradients("ours")
    assert all(distance(metric, ours, ours) == 0 for metric in ("squared", "l1", "l1_mean"))
    squares = torch.cat([a.flatten(1).square().sum(1) for a in ours if a.ndim > 1])
    exact(distance("cosine", ours, ours), (1e-6 / (squares + 1e-6)).sum())
    whole = sum(a.square().sum() for a in ours)
    exact(distance("cosine_whole", ours, ours), 1e-6 / (whole + 1e-6))


def test_cosine_ignores_vectors() -> None:
    ours, theirs = gradients("ours"), gradients("theirs")
    value, slope = distance_and_grad("cosine", ours, theirs)
    matrices = [[g for g in side if g.ndim > 1] for side in (ours, theirs)]
    exact(value, distance("cosine", *matrices))
    assert [bool(v.any()) for v in slope] == [g.ndim > 1 for g in ours]
    value, slope = distance_and_grad("cosine", ours[1:2], theirs[1:2])  # nothing but a bias
    assert value == 0
    assert not slope[0].any()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_zero_stay_finite(metric: Metric, dtype: torch.dtype) -> None:
    some = [a.to(dtype) for a in gradients("ours")]
    none = [torch.zeros_like(a) for a in some]
    for ours, theirs in ((none, none), (none, some), (some, none)):
        value, slope = distance_and_grad(metric, ours, theirs)
        assert value.dtype == dtype
        assert value.isfinite()
        assert all(v.isfinite().all() for v in slope)


def test_tensors_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        distance("squared", gradients("ours"), gradients("theirs")[:-1])


def test_parameters_of_convnet3() -> None:
    network = build("convnet3")
    convolutions = [f"blocks.{level}.conv.weight" for level in range(3)]
    weights = [*convolutions, "classifier.weight"]
    everything = [name for name, _ in network.named_parameters()]
    assert matched_parameters(network, "convolutions", "squared") == convolutions
    assert matched_parameters(network, "weights", "squared") == weights
    assert matched_parameters(network, "all", "squared") == everything
    assert matched_parameters(network, "all", "cosine_whole") == everything
    assert matched_parameters(network, "all", "cosine") == weights

    read = [torch.zeros_like(network.get_parameter(name)) for name in weights]
    assert distance("cosine", read, read) == 3 * 128 + 10  # a row without a gradient counts one


def test_layer_normalisation_has_weights() -> None:
    network = build("convnet3-layer-w8")
    names = matched_parameters(network, "weights", "cosine")
    assert "blocks.0.norm.weight" in names
    assert network.get_parameter("blocks.0.norm.weight").ndim == 3
    assert "blocks.0.norm.weight" not in matched_parameters(network, "convolutions", "cosine")


def test_a_network_with_nothing_to_match_is_refused() -> None:
    with pytest.raises(UserError, match=r"MLP has no convolutions .*; match its weights"):
        matched_parameters(build("mlp"), "convolutions", "squared")
    with pytest.raises(UserError, match=r"PReLU has no weights .*; choose another network"):
        matched_parameters(nn.PReLU(), "all", "cosine")
    assert matched_parameters(nn.PReLU(), "all", "l1") == ["weight"]


def batches(name: str, *counts: int) -> list[Tensor]:
    generator = seeding.generator(0, name)
    return [torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64) for count in counts]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("which", ["weights", "convolutions", "all"])
def test_the_slope_gives_the_pixel_gradient_of_double_backward(metric: Metric, which: str) -> None:
    """∇ₓD(g(x)) = ∇ₓ⟨v, g(x)⟩ with v = ∂D/∂g held constant."""
    network = build("convnet2-w4", size=8, num_classes=2).double()
    real = batches("real", 5, 4)
    synthetic = [x.requires_grad_() for x in batches("synthetic", 2, 3)]
    mirror = [lambda x: x, lambda x: x.flip(-1)]
    loss = reference.gradient_matching_loss(network, real, synthetic, mirror, metric, which)
    expected = torch.autograd.grad(loss, synthetic)

    parameters = [network.get_parameter(name) for name in matched_parameters(network, which, metric)]
    total = torch.zeros((), dtype=torch.float64)
    for label, augment in enumerate(mirror):
        theirs = torch.autograd.grad(
            reference.cross_entropy(network(augment(real[label])), label), parameters
        )
        ours = torch.autograd.grad(
            reference.cross_entropy(network(augment(synthetic[label])), label), parameters, create_graph=True
        )
        value, slope = distance_and_grad(metric, ours, theirs)
        directional = sum((v * g).sum() for v, g in zip(slope, ours, strict=True))
        (pixels,) = torch.autograd.grad(directional, synthetic[label])
        assert pixels.abs().max() > 0
        torch.testing.assert_close(pixels, expected[label], rtol=1e-9, atol=1e-11)
        total = total + value
    torch.testing.assert_close(total, loss.detach(), rtol=1e-10, atol=0)


def test_the_reference_trains_between_image_updates_by_plain_descent() -> None:
    network, twin = (build("mlp", size=8, num_classes=2).double() for _ in range(2))
    images = torch.cat(batches("synthetic", 2, 3)).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 1])
    order = {0: torch.tensor([4, 1, 0, 2, 3]), 1: torch.tensor([2, 3, 4, 0, 1])}
    reference.inner_epochs(
        network, images, labels, epochs=2, order=order.__getitem__, lr=0.1, batch_size=3,
        augment=lambda x, epoch, number: x * (1 + epoch + number),
    )  # fmt: skip
    assert images.grad is None
    for epoch in range(2):
        for number, rows in enumerate((order[epoch][:3], order[epoch][3:])):
            scores = twin(images[rows].detach() * (1 + epoch + number)).log_softmax(1)
            loss = -sum(row[label] for row, label in zip(scores, labels[rows], strict=True)) / len(rows)
            for weight, slope in zip(
                twin.parameters(), torch.autograd.grad(loss, list(twin.parameters())), strict=True
            ):
                weight.data -= 0.1 * slope
    for trained, by_hand in zip(network.parameters(), twin.parameters(), strict=True):
        exact(trained, by_hand)
