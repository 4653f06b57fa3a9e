"""Features whose graph is made again, part by part."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dsdistill.compute.embedder import Embedder
from dsdistill.compute.recomputed import features_of, logits_of
from dsdistill.runtime.allocations import peak_of
from tests.helpers.networks import build

CPU = torch.device("cpu")


def embedder(name: str = "convnet2-w8-batch") -> Embedder:
    return Embedder(build(name, 1, 12).double().eval().requires_grad_(False), 12, CPU, chunk=2)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7])
def test_features_and_gradients_are_those_of_one_pass(chunk: int) -> None:
    ours = embedder()
    images = torch.randn(5, 1, 12, 12, dtype=torch.float64, requires_grad=True)
    expected = ours.network.embed(images)
    (wanted,) = torch.autograd.grad(expected.sin().sum(), images)
    found = features_of(ours, images, chunk)
    assert_close(found, expected)
    assert_close(torch.autograd.grad(found.sin().sum(), images)[0], wanted)


def test_the_maps_of_one_part_are_there_at_once() -> None:
    ours = embedder("convnet2-w64")
    images = torch.randn(24, 1, 12, 12, dtype=torch.float64, requires_grad=True)

    def work(chunk: int) -> int:
        return peak_of(lambda: torch.autograd.grad(features_of(ours, images, chunk).sum(), images))

    assert work(2) < 0.3 * work(24)


@pytest.mark.parametrize("name", ["wideconvnet2-w4-inputbatch", "wideconvnet2-w4-none", "convnet2-w4-batch"])
@pytest.mark.parametrize("chunk", [2, 5, 9])
def test_weights_get_the_gradients_of_one_pass_and_statistics_are_updated_once(name: str, chunk: int) -> None:
    found = {}
    for way in (9, chunk):
        network = build(name, 1, 12).double().train()
        images = torch.linspace(-1, 1, 9 * 144, dtype=torch.float64).sin().view(9, 1, 12, 12)
        logits = logits_of(network, images, way)
        logits.square().sum().backward()
        gradients = {key: value.grad for key, value in network.named_parameters()}
        found[way] = logits.detach(), gradients, dict(network.named_buffers())
    assert_close(found[chunk], found[9], rtol=1e-9, atol=1e-11)


def test_training_holds_the_maps_of_one_part() -> None:
    network = build("wideconvnet2-w32-inputbatch", 1, 24).double().train()
    images = torch.randn(32, 1, 24, 24, dtype=torch.float64)

    def work(chunk: int) -> int:
        return peak_of(lambda: logits_of(network, images, chunk).sum().backward())

    assert work(4) < 0.5 * work(32)
