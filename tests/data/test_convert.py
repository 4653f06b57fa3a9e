"""Arrays of images at another size or in other channels, and the split by class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.data.convert import fit, stratified, with_channels
from tests.helpers.callbacks import Told
from tests.helpers.data import pixels

pytestmark = pytest.mark.usefixtures("data_home")


def test_arrays_are_converted_as_pillow_converts_files() -> None:
    rgb = pixels(3, 20, 28, 3)
    tensor = torch.from_numpy(rgb).permute(0, 3, 1, 2)
    luma = [np.asarray(Image.fromarray(image).convert("L")) for image in rgb]
    assert np.array_equal(with_channels(tensor, 1)[:, 0].numpy(), np.stack(luma))
    for size in (8, 40):
        resized = [
            np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
            for image in rgb
        ]
        difference = fit(tensor, size, 3, chunk=2).int() - torch.from_numpy(np.stack(resized)).permute(
            0, 3, 1, 2
        )
        assert int(difference.abs().max()) <= 1


def test_catalogue_data_can_be_resized_and_coloured() -> None:
    told: list[str] = []
    task, train = load(DataConfig(name="digits", size=16, channels=3), "train", Told(notify=told.append))
    assert task.shape == tuple(train.images.shape[1:]) == (3, 16, 16)
    assert told == [
        "digits (train): 1347 images, resized from 8x8 to 16x16 (bilinear, antialiased), "
        "greyscale repeated to 3 channels"
    ]


def test_every_class_keeps_an_image_on_both_sides() -> None:
    labels = torch.tensor([0] * 2 + [1] * 50 + [2] * 3)
    for fraction in (0.01, 0.5, 0.99):
        split = stratified(labels, fraction, ("a", "b", "c"))
        assert all(torch.bincount(labels[part], minlength=3).all() for part in split.values())
        assert sorted(torch.cat(list(split.values())).tolist()) == list(range(55))
