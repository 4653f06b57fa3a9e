"""Features whose graph is made again, part by part."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dsdistill.compute.embedder import Embedder
from dsdistill.compute.recomputed import features_of
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
