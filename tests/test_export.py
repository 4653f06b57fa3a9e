"""PNG folders, .pt files and the picture of a set."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsdistill import picture, storage
from dsdistill.data.preprocess import Standardise, from_state
from dsdistill.errors import UserError
from dsdistill.export import export_png, export_pt
from dsdistill.formation import Formation, decode
from dsdistill.storage import DistilledSet


def written(path: Path, channels: int = 3, **fields: object) -> DistilledSet:
    images = torch.rand(6, channels, 5, 7, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    values: dict = {
        "images": images,
        "labels": torch.tensor([0, 0, 1, 1, 1, 2]),
        "classes": ("plane", "car", "bird"),
        "preprocess": Standardise(torch.full((channels,), 0.5), torch.full((channels,), 0.25)),
    }
    distilled = DistilledSet(**(values | fields))
    storage.write(path, distilled)
    return distilled


def as_bytes(images: torch.Tensor) -> np.ndarray:
    return np.rint(np.clip(images.double().numpy(), 0, 1) * 255).astype(np.uint8)


# PNG --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_png_folder_holds_every_image(tmp_path: Path, channels: int) -> None:
    distilled = written(tmp_path / "set.h5", channels)
    sentence = export_png(tmp_path / "set.h5", tmp_path / "out")
    names = sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.png"))
    assert names == ["bird/0.png", "car/0.png", "car/1.png", "car/2.png", "plane/0.png", "plane/1.png"]
    for name, index in (("plane/1.png", 1), ("car/2.png", 4), ("bird/0.png", 5)):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.mode == {1: "L", 3: "RGB"}[channels]
            pixels = np.asarray(image).reshape(5, 7, channels).transpose(2, 0, 1)
        np.testing.assert_array_equal(pixels, as_bytes(distilled.images[index]))

    images = distilled.images.double().numpy()
    error = np.abs(images - as_bytes(distilled.images) / 255)
    assert f"{np.mean((images < 0) | (images > 1)):.2%}" in sentence
    assert f"largest error is {error.max():.4f}" in sentence
    assert f"rms {np.sqrt((error**2).mean()):.4f}" in sentence


def test_labels_csv_keeps_the_label_order(tmp_path: Path) -> None:
    written(tmp_path / "set.h5")
    export_png(tmp_path / "set.h5", tmp_path / "out")
    with open(tmp_path / "out" / "labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == [0, 0, 1, 1, 1, 2]
    assert rows[4] == {"file": "car/2.png", "label": "1", "class": "car"}


def test_indices_have_as_many_digits_as_they_need(tmp_path: Path) -> None:
    images, labels = torch.zeros(11, 3, 2, 2), torch.zeros(11, dtype=torch.int64)
    written(tmp_path / "set.h5", images=images, labels=labels, classes=("a",))
    export_png(tmp_path / "set.h5", tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out" / "a").iterdir())[-1] == "10.png"
    assert (tmp_path / "out" / "a" / "00.png").exists()


def test_class_names_become_safe_folders(tmp_path: Path) -> None:
    classes = ("../etc", "a/b", "a_b", "A_B", "con", "", "猫", "labels.csv", "x" * 300)
    written(
        tmp_path / "set.h5",
        images=torch.zeros(len(classes), 3, 2, 2),
        labels=torch.arange(len(classes)),
        classes=classes,
    )
    export_png(tmp_path / "set.h5", tmp_path / "out")
    folders = [folder.name for folder in (tmp_path / "out").iterdir() if folder.is_dir()]
    assert len({name.lower() for name in folders}) == len(classes)
    assert {"etc", "a_b", "猫"} <= set(folders)
    assert "con" not in folders
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "set.h5"]


def test_png_refusals_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "two.h5", channels=2)
    with pytest.raises(UserError, match="1 or 3 channels"):
        export_png(tmp_path / "two.h5", tmp_path / "out")
    written(tmp_path / "set.h5")
    with pytest.raises(UserError, match="mkdir -p"):
        export_png(tmp_path / "set.h5", tmp_path / "no" / "out")
    with pytest.raises(UserError, match="not an empty folder"):
        export_png(tmp_path / "set.h5", tmp_path / "two.h5")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.png").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        export_png(tmp_path / "set.h5", tmp_path / "full")

    def full(self: Image.Image, *args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(UserError, match="No space left"):
            export_png(tmp_path / "set.h5", tmp_path / "out")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["full", "set.h5", "two.h5"]
    (tmp_path / "empty").mkdir()
    export_png(tmp_path / "set.h5", tmp_path / "empty")
    assert (tmp_path / "empty" / "car").is_dir()


# .pt --------------------------------------------------------------------------------------------------------


def test_pt_is_plain_tensors(tmp_path: Path) -> None:
    distilled = written(tmp_path / "set.h5", soft_labels=torch.arange(18.0).reshape(6, 3))
    export_pt(tmp_path / "set.h5", tmp_path / "set.pt")
    content = torch.load(tmp_path / "set.pt", weights_only=True)
    torch.testing.assert_close(content["images"], (distilled.images - 0.5) / 0.25)
    assert torch.equal(content["labels"], distilled.labels)
    assert torch.equal(content["soft_labels"], torch.arange(18.0).reshape(6, 3))
    assert content["classes"] == ["plane", "car", "bird"]
    assert (content["space"], content["preprocess"]) == ("network", "standardise")
    torch.testing.assert_close(content["images"] * content["std"][0] + content["mean"][0], distilled.images)

    export_pt(tmp_path / "set.h5", tmp_path / "set.pt", space="unit")
    assert torch.equal(torch.load(tmp_path / "set.pt", weights_only=True)["images"], distilled.images)
    assert sorted(os.listdir(tmp_path)) == ["set.h5", "set.pt"]


def test_pt_of_a_whitened_set(tmp_path: Path) -> None:
    state = {"mean": torch.zeros(105), "matrix": torch.eye(105) * 2, "eps": torch.tensor(0.1)}
    distilled = written(tmp_path / "set.h5", preprocess=from_state("zca", state))
    export_pt(tmp_path / "set.h5", tmp_path / "set.pt")
    content = torch.load(tmp_path / "set.pt", weights_only=True)
    assert content["preprocess"] == "zca"
    assert "soft_labels" not in content
    whitened = (distilled.images.flatten(1) - content["mean"]) @ content["matrix"]
    torch.testing.assert_close(content["images"].flatten(1), whitened)


def test_a_multi_formation_is_decoded_in_pt_and_stored_in_png(tmp_path: Path) -> None:
    soft, formation = torch.arange(18.0).reshape(6, 3), Formation(factor=2)
    distilled = written(tmp_path / "set.h5", soft_labels=soft, formation=formation)
    export_pt(tmp_path / "set.h5", tmp_path / "set.pt", space="unit")
    content = torch.load(tmp_path / "set.pt", weights_only=True)
    assert content["labels"].tolist() == [0] * 8 + [1] * 12 + [2] * 4
    assert torch.equal(content["images"][8:20], decode(distilled.images[2:5], formation))
    assert torch.equal(content["soft_labels"][8:11], soft[2:5])

    assert "export a .pt" in export_png(tmp_path / "set.h5", tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 6
    written(tmp_path / "set.h5")
    assert "export a .pt" not in export_png(tmp_path / "set.h5", tmp_path / "plain")


def test_pt_refusals(tmp_path: Path) -> None:
    written(tmp_path / "set.h5")
    with pytest.raises(UserError, match="mkdir -p"):
        export_pt(tmp_path / "set.h5", tmp_path / "no" / "set.pt")
    with pytest.raises(UserError, match="cannot write"):
        export_pt(tmp_path / "set.h5", tmp_path)
    with pytest.raises(UserError, match="no file at"):
        export_pt(tmp_path / "absent.h5", tmp_path / "set.pt")


# The picture ------------------------------------------------------------------------------------------------


def drawn(path: Path, *arguments: object, **options: object) -> np.ndarray:
    picture.grid(*arguments, path, **options)  # type: ignore[arg-type]
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
        picture.grid(torch.zeros(0, 3, 4, 4), torch.arange(0), ["a"], tmp_path / "none.png")
    with pytest.raises(UserError, match="mkdir -p"):
        picture.grid(torch.zeros(1, 3, 4, 4), torch.arange(1), ["a"], tmp_path / "no" / "grid.png")
    assert [file.name for file in tmp_path.iterdir()] == ["grid.png"]


def test_pictures_leave_pyplot_alone(tmp_path: Path) -> None:
    from matplotlib import _pylab_helpers

    drawn(tmp_path / "grid.png", torch.zeros(1, 3, 4, 4), torch.arange(1), ["a"])
    assert not _pylab_helpers.Gcf.figs
