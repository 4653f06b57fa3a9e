"""Views that a batch shares: against torch's interpolation, flips and rolls."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dsdistill.augment.batch_view import BatchViewConfig
from dsdistill.augment.crops import RandomResizedCrop
from dsdistill.errors import UserError


def streams(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_all_images_of_a_batch_are_cropped_flipped_and_rolled_alike() -> None:
    config = BatchViewConfig(crop=(0.2, 0.9), flip=True, shift=(-3, 4))
    images = torch.rand(6, 2, 10, 10, dtype=torch.float64)
    flips = set()
    for seed in range(12):
        views = config.draw(10, True, 0, 1, streams(seed, seed + 100))
        assert views is not None
        expected = []
        for part, stream in zip(images.split(3), streams(seed, seed + 100), strict=True):
            top, left, height, width = (
                RandomResizedCrop(scale=(0.2, 0.9)).draw(1, 10, stream).boxes[0].tolist()
            )
            crop = part[:, :, top : top + height, left : left + width]
            crop = F.interpolate(crop, (10, 10), mode="bilinear", align_corners=False)
            mirrored = bool(torch.rand((), generator=stream) < 0.5)
            flips.add(mirrored)
            down, right = torch.randint(-3, 5, (2,), generator=stream).tolist()
            expected.append((crop.flip(-1) if mirrored else crop).roll((down, right), (2, 3)))
        torch.testing.assert_close(views(images), torch.cat(expected))
    assert flips == {False, True}


def test_nothing_is_mirrored_that_would_change_its_label() -> None:
    assert BatchViewConfig(flip=True).draw(10, False, 0, 1, streams(0)) is None
    assert BatchViewConfig().draw(10, True, 0, 1, streams(0)) is None


@pytest.mark.parametrize(
    ("curriculum", "milestone", "expected"),
    [
        ("none", 1.0, [0.08, 0.08, 0.08, 0.08]),
        ("linear", 1.0, [1.0, 0.77, 0.54, 0.31]),
        ("linear", 0.5, [1.0, 0.54, 0.08, 0.08]),
        ("step", 0.5, [1.0, 1.0, 0.08, 0.08]),
        ("cosine", 1.0, [1.0, 0.08 + 0.46 * (1 + 0.5**0.5), 0.54, 0.08 + 0.46 * (1 - 0.5**0.5)]),
    ],
)  # fmt: skip
def test_crops_begin_with_the_whole_image(curriculum: str, milestone: float, expected: list[float]) -> None:
    config = BatchViewConfig(crop=(0.08, 1.0), curriculum=curriculum, milestone=milestone)  # type: ignore[arg-type]
    assert [config.scale(iteration, 4)[0] for iteration in range(4)] == pytest.approx(expected)


@pytest.mark.parametrize(
    "options", [{"crop": (0.5, 0.2)}, {"shift": (3, 1)}, {"curriculum": "cosine"}], ids=str
)
def test_bounds_in_the_wrong_order_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"engine\.view"):
        BatchViewConfig(**options)  # type: ignore[arg-type]
