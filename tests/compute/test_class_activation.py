"""Class activation maps of networks, and the networks that have none."""

from __future__ import annotations

import pytest
import torch

from dsdistill.compute.class_activation import ClassActivation
from dsdistill.errors import UserError
from tests.helpers.networks import build, images
from tests.reference.cam import looped_activation


def test_maps_are_those_of_the_true_class() -> None:
    network = build("resnet10-batch-w4", channels=1, size=16, num_classes=3).double().eval()
    x, labels = images(1, 16, count=4, dtype=torch.float64), torch.tensor([0, 2, 1, 2])
    with torch.no_grad():
        maps, _ = network.trace(x)
    weight = network.classifier.weight
    assert isinstance(weight, torch.Tensor)
    found = ClassActivation(network, "mine", 1, 16)(x, labels)
    expected = looped_activation(maps[-1], weight.detach()[labels], 16)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float())


def test_the_share_of_all_places_is_the_logit() -> None:
    network = build("resnet10-batch-w4", channels=1, size=16).double().eval()
    x = images(1, 16, dtype=torch.float64)
    with torch.no_grad():
        maps, _ = network.trace(x)
        weight, bias = network.classifier.weight, network.classifier.bias
        shares = torch.einsum("bkhw,ck->bchw", maps[-1], weight)  # type: ignore[arg-type]
        torch.testing.assert_close(shares.mean((2, 3)) + bias, network(x))


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("convnet2-w8-batch", 16, "mine has no global average pooling before its classifier"),
        ("resnet18-ap-batch-w4", 32, "mine has no global average pooling before its classifier"),
        ("resnet10-batch-w4", 8, "one place only for images of 8x8, .* pass larger images .--size 16."),
    ],
)
def test_networks_without_such_maps_are_refused(name: str, size: int, said: str) -> None:
    network = build(name, channels=1, size=size).eval()
    with pytest.raises(UserError, match=said) as caught:
        ClassActivation(network, "mine", 1, size)
    assert "\n" not in str(caught.value)


def test_a_classifier_that_is_no_linear_layer_is_refused() -> None:
    network = build("resnet10-batch-w4", channels=1, size=16).eval()
    network.classifier = torch.nn.Sequential(network.classifier, torch.nn.ReLU())
    with pytest.raises(UserError, match="the classifier of mine is no linear layer"):
        ClassActivation(network, "mine", 1, 16)
