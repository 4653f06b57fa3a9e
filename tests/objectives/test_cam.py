"""Class activation maps against loops over images and places, in float64."""

from __future__ import annotations

import pytest
import torch

from dsdistill.objectives.cam import class_activation
from dsdistill.seeding import generator
from tests.reference.cam import looped_activation


@pytest.mark.parametrize("size", [4, 8, 12, 11])
def test_maps_equal_a_loop_over_places(size: int) -> None:
    draw = generator(0, "cam", size)
    maps = torch.randn(3, 5, 4, 4, generator=draw, dtype=torch.float64)
    weights = torch.randn(3, 5, generator=draw, dtype=torch.float64)
    found = class_activation(maps, weights, size)
    torch.testing.assert_close(found, looped_activation(maps, weights, size), rtol=1e-11, atol=1e-12)
    assert found.dtype == torch.float64
    assert 0 <= float(found.min()) < 0.2 < 0.8 < float(found.max()) <= 1


def test_a_constant_map_is_zero() -> None:
    maps, weights = torch.ones(2, 3, 4, 4), torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    assert not class_activation(maps, weights, 8).any()


def test_half_precision_is_computed_in_float32() -> None:
    maps = torch.randn(1, 3, 4, 4, generator=generator(0, "half")).bfloat16()
    weights = torch.ones(1, 3, dtype=torch.bfloat16)
    found = class_activation(maps, weights, 4)
    assert torch.equal(found, class_activation(maps.float(), weights.float(), 4))
