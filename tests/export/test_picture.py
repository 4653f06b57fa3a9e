"""Pictures of a distilled set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from dsdistill.errors import UserError
from dsdistill.export import picture
from tests.helpers.exports import as_bytes


def drawn(path: Path, *arguments: object, **options: object) -> np.ndarray:
    picture.write_grid(*arguments, path, **options)  # type: ignore[arg-type]
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def contains(page: np.ndarray, tile: np.ndarray) -> bool:
    """Whether a tile is in the page exactly."""
    windows = np.lib.stride_tricks.sliding_window_view(page[..., 0], tile.shape[:2])
    corners = (windows[..., 0, 0] == tile[0, 0, 0]) & (windows[..., -1, -1] == tile[-1, -1, 0])
    rows, columns = np.nonzero(corners)
    height, width = tile.shape[:2]
    return any(
        np.array_equal(page[y : y + height, x : x + width], tile) for y, x in zip(rows, columns, strict=True)
    )


SHAPES = [((3, 8, 8), 8), ((1, 28, 28), 2), ((3, 20, 30), 2), ((2, 90, 70), 1)]


@pytest.mark.parametrize(("shape", "factor"), SHAPES)
def test_every_image_is_there_pixel_for_pixel(tmp_path: Path, shape: tuple[int, ...], factor: int) -> None:
    images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    page = drawn(tmp_path / "grid.png", images, torch.tensor([1, 0, 1, 0]), ["one", "two"], title="A title")
    for image in images:
        colour = image if shape[0] == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
        tile = as_bytes(colour).transpose(1, 2, 0).repeat(factor, 0).repeat(factor, 1)
        assert contains(page, tile)


def test_rows_are_classes_with_names(tmp_path: Path) -> None:
    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    images[0, 0], images[1, :2] = 1, 0  # red and blue
    page = drawn(tmp_path / "grid.png", images, torch.tensor([2, 0]), ["a", "absent", "c"]).astype(int)
    red = np.argwhere((page == (255, 0, 0)).all(-1))
    blue = np.argwhere((page == (0, 0, 255)).all(-1))
    assert len(red) == len(blue) == 64 * 64
    assert blue[:, 0].max() < red[:, 0].min()  # class 0 above class 2, nothing between
    assert red[:, 0].min() - blue[:, 0].max() < 8
    dark = np.argwhere(page.sum(-1) < 200)  # letters, left of the images, each beside its row
    assert len(dark)
    assert dark[:, 1].max() < red[:, 1].min()
    assert {int(y > blue[:, 0].max()) for y in dark[:, 0]} == {0, 1}


@pytest.mark.slow
def test_large_sets_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = []
    render = picture._render
    monkeypatch.setattr(picture, "_render", lambda *a: (notes.append(a[-1]), render(*a))[1])
    labels = torch.arange(60).repeat_interleave(23)
    page = drawn(
        tmp_path / "grid.png", torch.zeros(len(labels), 1, 2, 2), labels, [str(i) for i in range(60)]
    )
    drawn(tmp_path / "grid.png", torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), ["a", "b"])
    assert notes == ["showing 50 of 60 classes, 20 of up to 23 images a class", ""]
    assert page.shape[0] > 50 * 64
    assert 20 * 64 < page.shape[1] < 21 * 66 + 100


def test_large_images_are_reduced(tmp_path: Path) -> None:
    page = drawn(tmp_path / "grid.png", torch.full((1, 3, 600, 300), 0.2), torch.tensor([0]), ["a"])
    assert (page == 51).all(-1).sum() == 128 * 64


def test_odd_names_and_no_images(tmp_path: Path) -> None:
    names = ["$x^2$", "猫", "_" * 200, "", "\\frac{"]
    page = drawn(tmp_path / "grid.png", torch.zeros(5, 3, 4, 4), torch.arange(5), names, title="$50 & 猫 {")
    assert page.shape[1] < 600
    with pytest.raises(UserError, match="no images"):
        picture.write_grid(torch.zeros(0, 3, 4, 4), torch.arange(0), ["a"], tmp_path / "none.png")
    with pytest.raises(UserError, match="mkdir -p"):
        picture.write_grid(torch.zeros(1, 3, 4, 4), torch.arange(1), ["a"], tmp_path / "no" / "grid.png")
    assert [file.name for file in tmp_path.iterdir()] == ["grid.png"]


@pytest.mark.parametrize("text", ["x" * 100_000, "a\n" * 1000, "\x1b[31m" * 1000])
def test_long_texts_make_no_large_picture(tmp_path: Path, text: str) -> None:
    page = drawn(tmp_path / "grid.png", torch.zeros(1, 3, 4, 4), torch.arange(1), [text], title=text)
    assert page.shape[0] < 150
    assert page.shape[1] < 2000


def test_names_are_drawn_where_no_font_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truetype = ImageFont.truetype

    def installed(font: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(font, str):
            raise OSError("cannot open resource")
        return truetype(font, *arguments, **options)

    monkeypatch.setattr(ImageFont, "truetype", installed)
    page = drawn(tmp_path / "grid.png", torch.ones(1, 3, 4, 4), torch.arange(1), ["cat"], title="A title")
    dark = np.argwhere(page.sum(-1) < 300)
    assert {int(y > 38) for y in dark[:, 0]} == {0, 1}  # in the line of the title, and below it
