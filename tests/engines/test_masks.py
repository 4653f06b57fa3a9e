"""Masks of the update against loops over pixels."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor

from dsdistill.engines.masks import MaskConfig
from dsdistill.errors import UserError
from dsdistill.supply.teachers import Teachers
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation
from dsdistill.synthetic.set import SyntheticSet
from dsdistill.synthetic.trained import TrainedNetworks
from tests.helpers.engines import toy


class Looking(TrainedNetworks):
    """Two networks that look at bright pixels, and at dark ones of the second class."""

    count = 2

    def logits(self, network: int, images: Tensor) -> Tensor:
        raise AssertionError("no mask depends on logits")

    def activation(self, network: int, images: Tensor, labels: Tensor) -> Tensor:
        bright = images.mean(1).sigmoid() ** (network + 1)
        return torch.where(labels[:, None, None] == 1, 1 - bright, bright)


def initial(form: MultiFormation = IDENTITY) -> SyntheticSet:
    task, real = toy(2)
    return SyntheticSet(real.unit(slice(0, 6)), (2, 2, 2), "unit", task.preprocess, form)


def masked(config: MaskConfig, synthetic: SyntheticSet) -> Tensor | None:
    config.register(synthetic, cast("Teachers", Looking()))
    return synthetic.update_mask


@pytest.mark.parametrize("inverted", [False, True])
def test_a_mask_is_what_is_left_below_the_threshold(inverted: bool) -> None:
    synthetic = initial()
    images = synthetic.preprocess(synthetic.images.detach())
    mask = masked(MaskConfig(of="cam", threshold=0.6, inverted=inverted), synthetic)
    assert mask is not None
    assert mask.shape == (6, 1, 12, 12)
    for image, label in enumerate([0, 0, 1, 1, 2, 2]):
        for row in range(12):
            for column in range(12):
                bright = float(images[image, :, row, column].mean().sigmoid())
                looks = [bright, bright**2] if label != 1 else [1 - bright, 1 - bright**2]
                seen = sum(looks) / 2
                left = max(0.0, 0.6 - ((1 - seen) if inverted else seen))
                assert float(mask[image, 0, row, column]) == pytest.approx(left, abs=1e-6)
    assert 0.2 < float((mask == 0).float().mean()) < 0.9


def test_none_takes_whole_steps() -> None:
    assert masked(MaskConfig(), initial()) is None


def test_decoded_images_have_no_mask() -> None:
    with pytest.raises(UserError, match=r"set multi_formation.factor=1 or engine.mask.of=none"):
        masked(MaskConfig(of="cam"), initial(MultiFormation(factor=2)))
