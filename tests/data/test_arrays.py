"""Arrays of images: where their channels are, and what is white."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dsdistill.data.arrays import Layout, White, as_array, read_images
from dsdistill.errors import UserError
from tests.helpers.data import pixels

BYTE = np.dtype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "prefer_last", "channels", "last", "ambiguous"),
    [
        ((5, 8, 9), True, 1, False, False),
        ((5, 8, 9, 3), False, 3, True, False),
        ((5, 3, 8, 9), True, 3, False, False),
        ((5, 1, 8, 9), True, 1, False, False),
        ((5, 3, 8, 3), True, 3, True, True),
        ((5, 3, 8, 3), False, 3, False, True),
    ],
)
def test_the_channels_are_where_there_are_one_or_three(
    shape: tuple[int, ...], prefer_last: bool, channels: int, last: bool, ambiguous: bool
) -> None:
    layout = Layout.of(shape, BYTE, "images", prefer_last)
    assert (layout.channels, layout.channels_last, layout.ambiguous) == (channels, last, ambiguous)
    assert layout.channels_first(np.zeros(shape)).shape == (5, *layout.shape)
    assert bool(layout.sentence()) == ambiguous


def test_every_range_gives_the_same_bytes() -> None:
    expected = pixels(6, 3, 8, 8)
    expected[0, 0, 0, 0] = 255
    unit, byte = "values in 0..1, 1 is white", "values in 0..255, 255 is white"
    ways: list[tuple[str, NDArray[Any]]] = [("", expected), (unit, expected / 255), (byte, expected * 1.0)]
    ways += [(unit, (expected / 255).astype(np.float16)), (byte, expected.astype(np.int64))]
    for words, array in ways:
        images, said = read_images(array, Layout.of(array.shape, array.dtype, "images"), "images")
        assert torch.equal(images, torch.from_numpy(expected))
        assert said == words


def test_bytes_are_taken_without_a_copy_and_a_protected_array_is_left_alone() -> None:
    array = pixels(2, 1, 4, 4)
    layout = Layout.of(array.shape, array.dtype, "images")
    assert read_images(array, layout, "images")[0].data_ptr() == array.ctypes.data
    array.flags.writeable = False
    assert read_images(array, layout, "images")[0].data_ptr() != array.ctypes.data


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([-2.1, 2.6]), r"values from -2\.1 to 2\.6; leave out what normalises them \(Normalize\)"),
        (np.array([0, -1]), "values from -1 to 0"),
        (np.array([0.0, 4095]), "up to 4095, above 255; divide by the largest"),
        (np.array([0, 256]), "up to 256, above 255"),
        (np.array([0.0, np.inf]), "up to inf, above 255"),
        (np.array([0.5, np.nan]), "not numbers"),
        (np.array([0.0, 1.02]), r"up to 1\.02, nearly black where 255 is white"),
        (np.array([0.0, 16]), "up to 16, nearly black"),
        (np.array([0, 1]), "up to 1, nearly black"),
    ],
)
def test_values_of_no_known_range_are_refused(array: NDArray[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_images(array[:, None, None], Layout(2, 1, 1, 1), "images")


def test_images_of_two_ranges_are_refused_but_black_ones_are_of_any() -> None:
    white = White("images")
    for image in (np.zeros(4), np.full(4, 200.0), np.zeros(4)):
        white.to_bytes(image)
    assert white.check() == "values in 0..255, 255 is white"
    white.to_bytes(np.full(4, 0.5))
    with pytest.raises(UserError, match=r"images up to 0\.5 and others up to 200"):
        white.check()


def test_tensors_of_any_kind_become_arrays() -> None:
    assert as_array(torch.ones(2, requires_grad=True)).tolist() == [1, 1]
    assert as_array(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
