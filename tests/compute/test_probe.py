"""The linear probe: it is the minimum, however the features are scaled."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dsdistill.compute.probe import joined, linear_probe
from dsdistill.runtime.allocations import peak_of


def sample(count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    features = torch.randn(count, 5, dtype=torch.float64, generator=generator)
    features[:, :3] += 1.5 * F.one_hot(labels, 3)
    return features, labels


def test_it_is_the_minimum_of_loss_and_decay() -> None:
    features, labels = sample()
    inputs = (features - features.mean(0)) / features.std(0, unbiased=False)
    weight, bias = (each.requires_grad_() for each in linear_probe(inputs, labels, 3, decay=0.1))
    loss = F.cross_entropy(inputs @ weight.T + bias, labels) + 0.05 * weight.square().sum()
    gradients = torch.autograd.grad(loss, (weight, bias))
    assert max(float(each.abs().max()) for each in gradients) < 1e-4
    assert float(weight.detach().abs().max()) > 0.1


def test_scale_and_place_of_features_do_not_matter() -> None:
    features, labels = sample()
    scaled = features * torch.tensor([1.0, 100.0, 0.01, 1.0, 3.0]) + 7
    ours, other = (linear_probe(each, labels, 3) for each in (features, scaled))
    torch.testing.assert_close(
        features @ ours[0].T + ours[1], scaled @ other[0].T + other[1], rtol=1e-3, atol=1e-3
    )


def test_it_classifies_and_leaves_out_features_that_never_vary() -> None:
    features, labels = sample()
    features = torch.cat([features, torch.full((60, 1), 4.0)], 1).float()
    weight, bias = linear_probe(features, labels, 3)
    assert weight.dtype == torch.float32
    assert not weight[:, -1].any()
    assert float(((features @ weight.T + bias).argmax(1) == labels).float().mean()) > 0.8


def test_it_is_found_where_no_gradients_are_kept() -> None:
    features, labels = sample()
    with torch.no_grad():
        weight, _ = linear_probe(features, labels, 3)
    assert not weight.requires_grad
    assert weight.abs().max() > 0


def test_features_may_be_overwritten_which_changes_nothing_else() -> None:
    features, labels = sample()
    kept = features.clone()
    ours = linear_probe(features, labels, 3)
    assert torch.equal(features, kept)
    for mine, other in zip(ours, linear_probe(kept, labels, 3, overwrite=True), strict=True):
        assert torch.equal(mine, other)
    torch.testing.assert_close(kept.mean(0), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(kept.std(0, unbiased=False), torch.ones(5, dtype=torch.float64))


def test_the_features_are_in_memory_once() -> None:
    features = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))
    labels = (features[:, 0] > 0).long()

    def fit() -> None:
        parts = (part.clone() for part in features.split(64))
        linear_probe(joined(parts, len(features)), labels, 2, overwrite=True)

    assert features.nbytes < peak_of(fit) < 1.25 * features.nbytes


def test_parts_are_joined_in_order_and_counted() -> None:
    features, _ = sample(10)
    assert torch.equal(joined(iter(features.split(4)), 10), features)
    for count in (8, 12):
        with pytest.raises(ValueError, match=f"of 10 images came where those of {count} were announced"):
            joined(features.split(4), count)
