"""Training images one by one, and what formats of examples leave out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsdistill.data.preprocess import from_state
from dsdistill.errors import UserError
from dsdistill.export.training_images import TrainingImages
from dsdistill.synthetic.multi_formation import MultiFormation, decode
from tests.helpers.exports import as_bytes, written


def test_examples_hold_the_picture_and_the_pixels(tmp_path: Path) -> None:
    distilled = written(tmp_path / "set.h5")
    images = TrainingImages(tmp_path / "set.h5")
    examples = list(images)
    assert [each.label for each in examples] == distilled.labels.tolist()
    for image, example in zip(distilled.images, examples, strict=True):
        np.testing.assert_array_equal(example.pixels, image.numpy())
        picture = np.asarray(Image.open(io.BytesIO(example.png)))
        np.testing.assert_array_equal(picture.transpose(2, 0, 1), as_bytes(image))
        assert example.logits is None
    assert images.dropped() == []
    assert images.description() == {
        "classes": ["plane", "car", "bird"],
        "preprocess": {"kind": "standardise", "mean": [0.5] * 3, "std": [0.25] * 3},
    }


def test_a_multi_formation_is_decoded_and_whitening_left_out(tmp_path: Path) -> None:
    state = {"mean": torch.zeros(105), "matrix": torch.eye(105), "eps": torch.tensor(0.1)}
    formation, soft = MultiFormation(factor=2), torch.arange(18.0).reshape(6, 3)
    preprocess = from_state("zca", state)
    distilled = written(
        tmp_path / "set.h5", multi_formation=formation, soft_labels=soft, preprocess=preprocess
    )
    images = TrainingImages(tmp_path / "set.h5")
    examples = list(images)
    assert len(examples) == len(images) == 24
    assert [each.label for each in examples] == [0] * 8 + [1] * 12 + [2] * 4
    decoded = decode(distilled.images[:2], formation)
    np.testing.assert_array_equal(np.stack([each.pixels for each in examples[:8]]), decoded.numpy())
    np.testing.assert_array_equal(np.stack([each.logits for each in examples[8:11]]), soft[2:5].numpy())  # type: ignore[type-var]
    assert "6 stored images are written as the 24" in images.dropped()[0]
    assert "whitening is left out" in images.dropped()[1]
    assert images.description()["preprocess"] == {"kind": "zca"}


def test_two_channels_are_no_picture(tmp_path: Path) -> None:
    written(tmp_path / "set.h5", channels=2)
    with pytest.raises(UserError, match="1 or 3 channels"):
        TrainingImages(tmp_path / "set.h5")
