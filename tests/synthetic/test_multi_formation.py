"""Multi-formation: counts, order and pixels of what stored images are decoded into, against naive loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dsdistill.config.validation import validate
from dsdistill.errors import UserError
from dsdistill.synthetic.multi_formation import IDENTITY, Mode, MultiFormation, decode, mosaic, stitched
from tests.reference.multi_formation import decode as naive

MODES: list[MultiFormation] = [
    MultiFormation(factor=2),
    MultiFormation(factor=3),
    MultiFormation(factor=3, mode="multi"),
    MultiFormation(factor=3, mode="bound", bound=30),
]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def naive_counts(stored: int, factor: int, bound: int) -> list[int]:
    """Images at each factor from the highest down: one at a time, while the rest still fits at factor 1."""
    counts = []
    training = stored  # were all at factor 1
    for current in range(factor, 1, -1):
        counts.append(0)
        # The images not yet placed count as one each, and the one placed is not taken off: as in IDC's code.
        room = bound - training
        while room >= current**2 and sum(counts) < stored:
            counts[-1] += 1
            room -= current**2
        training += counts[-1] * (current**2 - 1)
    return [*counts, stored - sum(counts)]


@pytest.mark.parametrize(
    ("shape", "factor"),
    [((1, 8, 8), 2), ((3, 8, 8), 4), ((1, 28, 28), 3), ((2, 5, 7), 2), ((1, 5, 7), 3)],
)
def test_single_is_the_naive_loop(shape: tuple[int, int, int], factor: int) -> None:
    images = random(2, *shape)
    found = decode(images, MultiFormation(factor=factor))
    assert found.shape == (2 * factor**2, *shape)
    torch.testing.assert_close(found, naive(images, factor))


def test_multi_joins_factors_from_one_up() -> None:
    images = random(2, 1, 7, 7)
    found = decode(images, MultiFormation(factor=3, mode="multi"))
    assert len(found) == 2 * (1 + 4 + 9)
    torch.testing.assert_close(found, torch.cat([naive(images, factor) for factor in (1, 2, 3)]))


def test_bound_gives_the_first_images_the_highest_factor() -> None:
    images = random(20, 1, 6, 6)
    found = decode(images, MultiFormation(factor=3, mode="bound"))
    expected = torch.cat([naive(images[:12], 3), naive(images[12:15], 2), images[15:]])
    assert len(found) == 108 + 12 + 5
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("bound", [1, 50, 128])
def test_bound_counts(factor: int, bound: int) -> None:
    multi_formation = MultiFormation(factor=factor, mode="bound", bound=bound)
    for stored in (1, 7, 20, 50, 128, 200):
        counts = naive_counts(stored, factor, bound)
        parts = {q: len(rows) for q, rows in multi_formation.parts(stored)}
        assert [parts.get(q, 0) for q in range(factor, 0, -1)] == counts
        total = sum(count * q**2 for q, count in zip(range(factor, 0, -1), counts, strict=True))
        assert multi_formation.decoded_count(stored) == total <= max(bound, stored)


def test_more_images_than_the_bound_stay_as_they_are() -> None:
    images = random(5, 1, 6, 6)
    assert torch.equal(decode(images, MultiFormation(factor=3, mode="bound", bound=4)), images)


@pytest.mark.parametrize("mode", ["single", "multi", "bound"])
def test_factor_one_is_the_identity(mode: Mode) -> None:
    images = random(3, 1, 5, 5)
    multi_formation = MultiFormation(mode=mode)
    assert decode(images, multi_formation) is images
    assert multi_formation.is_identity
    assert multi_formation.decoded_count(3) == 3
    assert multi_formation.origins(3).tolist() == [0, 1, 2]
    assert not MultiFormation(factor=2, mode=mode).is_identity


@pytest.mark.parametrize("multi_formation", MODES)
def test_origins_name_the_stored_image(multi_formation: MultiFormation) -> None:
    levels = torch.arange(5.0)
    images = levels[:, None, None, None].expand(5, 1, 6, 6)
    decoded = decode(images, multi_formation)
    assert len(decoded) == multi_formation.decoded_count(5)
    torch.testing.assert_close(decoded.mean((1, 2, 3)), levels[multi_formation.origins(5)])


@pytest.mark.parametrize("multi_formation", MODES)
def test_classes_are_decoded_alone(multi_formation: MultiFormation) -> None:
    images = random(2, 3, 5, 2, 7, 7)
    together = decode(images, multi_formation)
    assert together.shape == (2, 3, multi_formation.decoded_count(5), 2, 7, 7)
    for row in range(2):
        for column in range(3):
            assert torch.equal(together[row, column], decode(images[row, column], multi_formation))


@pytest.mark.parametrize("multi_formation", MODES)
def test_the_gradient_is_the_adjoint(multi_formation: MultiFormation) -> None:
    images = random(2, 4, 1, 7, 7).requires_grad_()
    weights = random(2, multi_formation.decoded_count(4), 1, 7, 7, seed=1)
    torch.einsum("...,...->", decode(images, multi_formation), weights).backward()
    assert images.grad is not None
    other = random(2, 4, 1, 7, 7, seed=2)  # without fill, decoding is linear
    torch.testing.assert_close(
        (images.grad * other).sum(), (decode(other, multi_formation, 0.0) * weights).sum()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_types_stay(dtype: torch.dtype) -> None:
    images = random(2, 1, 8, 8).to(dtype)
    found = decode(images, MultiFormation(factor=2))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), naive(images.double(), 2), atol=1e-2, rtol=0)


@pytest.mark.parametrize(("size", "factor"), [(32, 2), (6, 3), (8, 4)])
def test_a_mosaic_decodes_into_its_images(size: int, factor: int) -> None:
    sources = random(3 * factor**2, 2, size, size)
    found = decode(mosaic(sources, factor), MultiFormation(factor=factor))
    tile = size // factor
    small = sources[:, :, ::factor, ::factor]  # nearest: the first pixel of each factor
    assert small.shape[2:] == (tile, tile)
    torch.testing.assert_close(found, interpolate(small, (size, size), mode="bilinear"))


def test_tiles_of_a_mosaic_differ_by_a_pixel() -> None:
    sources = torch.arange(18.0).view(18, 1, 1, 1).expand(18, 1, 28, 28)
    made = mosaic(sources, 3)
    assert made.shape == (2, 1, 28, 28)
    for image in range(2):
        rows = made[image, 0]
        assert rows[0].unique_consecutive(return_counts=True)[1].tolist() == [10, 9, 9]
        assert rows[:, 0].unique_consecutive(return_counts=True)[1].tolist() == [10, 9, 9]
        corners = rows[[5, 15, 25]][:, [5, 15, 25]]
        assert torch.equal(corners, torch.arange(9.0).view(3, 3) * 2 + image)
    assert torch.equal(mosaic(sources, 1), sources)


@pytest.mark.parametrize(
    ("fields", "size", "message"),
    [
        ({"factor": 0}, 8, "at least 1"),
        ({"bound": 0}, 8, "at least 1"),
        ({"mode": "up"}, 8, "modes are single, multi, bound"),
        ({"factor": 9}, 8, "choose a smaller factor"),
        ({"factor": 5}, 8, "choose a smaller factor"),  # 2 pixels a tile: the fifth is all padding
        ({"factor": 6, "mode": "multi"}, 12, "choose a smaller factor"),  # 5 is one of its factors
        ({"factor": 10**12, "mode": "bound"}, 12, "choose a smaller factor"),
    ],
)
def test_what_cannot_be_is_said(fields: dict[str, Any], size: int, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        MultiFormation(**fields).check(size)
    assert "\n" not in str(caught.value)


def test_what_fits_is_accepted() -> None:
    IDENTITY.check(1)
    for factor, size in ((8, 8), (3, 28), (2, 5), (3, 64), (6, 12)):
        MultiFormation(factor=factor).check(size)


@pytest.mark.parametrize("table", [{"factor": 0}, {"bound": 0}, {"mode": "up"}, {"factr": 2}])
def test_as_a_table_of_options(table: dict[str, Any]) -> None:
    known = ["factor", "mode", "bound"]
    assert validate(MultiFormation, {"factor": 2, "mode": "multi"}, "option", known).decoded_count(3) == 15
    with pytest.raises(UserError, match=next(iter(table))):
        validate(MultiFormation, table, "option", known)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_stitched_cells_are_a_mosaic_of_what_is_shrunk_beforehand(factor: int) -> None:
    images = torch.randn(2 * factor**2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    cells = images[:, :, ::factor, ::factor]
    assert torch.equal(stitched(cells, factor), mosaic(images, factor))
