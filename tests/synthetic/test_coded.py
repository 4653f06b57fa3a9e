"""Coded pixels against a plain loop, and through the columns of a file."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from dsdistill.errors import UserError
from dsdistill.synthetic import coded
from dsdistill.synthetic.coded import CodedPixels, Coder, Coding, encode, from_patches, to_patches


def images(count: int = 3, channels: int = 2, height: int = 9, width: int = 7) -> Tensor:
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(0))


def plain(values: np.ndarray, bits: int) -> np.ndarray:
    """Quantise one patch by itself, in float64, but for the scale and the offset, which are float16."""
    offset = np.float16(values.min())
    scale = np.float16((np.float32(values.max()) - np.float32(offset)) / (2**bits - 1))
    codes = np.clip(np.round((values - float(offset)) / float(scale)), 0, 2**bits - 1)
    return float(offset) + codes * float(scale)


@pytest.mark.parametrize(("bits", "patch"), list(itertools.product([1, 2, 3, 8], [0, 4, 5])))
def test_patches_are_quantised_one_by_one(bits: int, patch: int) -> None:
    original = images()
    found = encode(original, Coding(bits, patch, 0)).decode()

    expected = original.double().numpy().copy()
    side_y, side_x = (patch, patch) if patch else original.shape[2:]
    for image, original_image in zip(expected, original.numpy(), strict=True):
        for y, x in itertools.product(range(0, 9, side_y), range(0, 7, side_x)):
            for channels in [slice(0, 1), slice(1, 2)] if patch else [slice(None)]:
                place = (channels, slice(y, y + side_y), slice(x, x + side_x))
                image[place] = plain(original_image[place].astype(np.float64), bits)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_shared_quantisers_cover_the_ranges_of_their_patches() -> None:
    dark, light = torch.rand(4, 1, 8, 8) * 0.1, 0.8 + torch.rand(4, 1, 8, 8) * 0.2
    original = torch.cat([dark, light])
    coded = Coder(original, patch=4).code(bits=3, groups=2)

    assert coded.groups is not None
    first, second = coded.groups[:4].unique().tolist(), coded.groups[4:].unique().tolist()
    assert len(first) == len(second) == 1
    assert first != second  # k-means tells the two ranges apart
    scales, offsets = coded.scales.float(), coded.offsets.float()
    assert torch.allclose(offsets[first[0]], dark.min(), atol=1e-3)
    assert torch.allclose(offsets[first[0]] + 7 * scales[first[0]], dark.max(), atol=1e-3)
    steps = scales[coded.groups].repeat_interleave(16, 1).view(8, -1)
    errors = (to_patches(coded.decode() - original, 4)).flatten(1).abs()
    assert (errors <= steps / 2 + 1e-3).all()


@pytest.mark.parametrize(("bits", "patch", "groups"), list(itertools.product(range(1, 9), [0, 4], [0, 3])))
def test_columns_of_a_file_are_read_back(bits: int, patch: int, groups: int) -> None:
    coded = encode(images(), Coding(bits, patch, groups))
    columns = {name: torch.from_numpy(column) for name, column in coded.columns().items()}

    found = CodedPixels.from_columns(columns, coded.about())

    assert torch.equal(found.decode(), coded.decode())
    pixels = coded.codes[0].numel()
    assert columns["codes"].shape == (3, -(-pixels * bits // 8))
    assert found.coding == coded.coding


def test_constant_patches_are_exact() -> None:
    original = torch.full((2, 1, 8, 8), 0.25)
    assert torch.equal(encode(original, Coding(1, 4, 0)).decode(), original)
    assert torch.equal(encode(original, Coding(2, 4, 1)).decode(), original)


def test_patches_and_images_are_the_same() -> None:
    original = images(height=10, width=8)
    for patch in (0, 4, 5):
        assert torch.equal(from_patches(to_patches(original, patch), (2, 10, 8), patch), original)


@pytest.mark.parametrize("asked", [1, 3, 8, 20, 64])
def test_there_are_as_many_quantisers_as_asked_for_or_as_ranges(asked: int) -> None:
    original = (images(40, 1, 8, 8) * 2).round() / 2  # of few distinct ranges
    patches = to_patches(original, 4)
    ranges = torch.stack([patches.amin(2).flatten(), patches.amax(2).flatten()], 1)
    coded = Coder(original, 4).code(2, asked)
    assert len(coded.scales) == min(asked, len(ranges.unique(dim=0)))


def test_of_many_ranges_k_means_goes_by_some(monkeypatch: pytest.MonkeyPatch) -> None:
    many = images(count=50)
    whole = encode(many, Coding(4, 3, 5)).decode()
    monkeypatch.setattr(coded, "_CLUSTERED", 40)
    some = encode(many, Coding(4, 3, 5))
    assert len(some.scales) == 5
    errors = [float((each - many).square().mean()) for each in (whole, some.decode())]
    assert errors[1] < 1.5 * errors[0]


def test_more_quantisers_code_better() -> None:
    coder = Coder(images(40, 1, 8, 8), 4)
    errors = [
        float((coder.code(2, groups).decode() - images(40, 1, 8, 8)).square().mean())
        for groups in (1, 4, 16, 64)
    ]
    assert errors == sorted(errors, reverse=True)


def test_bad_input() -> None:
    with pytest.raises(UserError, match=r"differ by 1e\+05, too much for 1 bits"):
        encode(torch.tensor([-5e4, 5e4]).view(1, 1, 1, 2), Coding(1, 0, 0))
    with pytest.raises(UserError, match=r"a patch of 8×8 is larger than an image of 9×7"):
        encode(images(), Coding(2, 8, 0))
    with pytest.raises(UserError, match=r"cannot hold a value of 7e\+04; store the set as float32"):
        encode(torch.full((1, 1, 4, 4), 7e4), Coding(2, 4, 0))


def test_parts_that_do_not_fit_are_refused() -> None:
    coded = encode(images(), Coding(2, 4, 3))
    columns = {name: torch.from_numpy(column) for name, column in coded.columns().items()}
    about = coded.about()
    wrong = [
        (columns | {"codes": columns["codes"][:, 1:]}, about),
        (columns | {"groups": columns["groups"] + 1}, about),
        (columns | {"scales": columns["scales"][1:]}, about),
        (columns | {"scales": -columns["scales"]}, about),
        (columns | {"offsets": columns["offsets"] * torch.nan}, about),
        ({name: column for name, column in columns.items() if name != "groups"}, about),
        (columns, about | {"height": 30}),
        (columns, about | {"bits": 9}),
        (columns, about | {"patch": 20}),
    ]
    for table, attributes in wrong:
        with pytest.raises(ValueError, match=r"size|groups|number|finite|patch|bits"):
            CodedPixels.from_columns(table, attributes)
