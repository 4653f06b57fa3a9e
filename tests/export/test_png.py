"""A distilled set as a folder of PNG files."""

from __future__ import annotations

import csv
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsdistill.errors import UserError
from dsdistill.export.png import _folder_names, export_png
from tests.helpers.exports import as_bytes, written


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


def test_folders_differ_on_every_system() -> None:
    classes = (
        "é",
        "e\u0301",
        "É",
        "COM¹",
        "lpt3.txt",
        "-rf",
        "+1",
        "a.",
        "猫" * 100,
        "a\x1b[31m\nb",
        "ﬁ",
        "fi",
    )
    names = _folder_names(classes)
    folded = {unicodedata.normalize("NFKC", name).casefold() for name in names}
    assert len(folded) == len(classes)
    assert all(len(name.encode()) < 120 for name in names)
    assert not [name for name in names if re.match(r"[-+.]|(com|lpt)[\d¹²³](\.|$)", name, re.IGNORECASE)]
    assert not [name for name in names if name.endswith(".") or not name.isprintable()]


def test_labels_csv_computes_nothing_and_reads_back(tmp_path: Path) -> None:
    classes = ("=1+1", "'quoted", "a\nb")
    written(tmp_path / "set.h5", classes=classes)
    export_png(tmp_path / "set.h5", tmp_path / "out")
    with open(tmp_path / "out" / "labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    cells = list(dict.fromkeys(row["class"] for row in rows))
    assert cells == ["'=1+1", "''quoted", "a\\nb"]
    assert [cell.removeprefix("'") for cell in cells[:2]] == list(classes[:2])


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


@pytest.mark.parametrize(
    ("config", "remedy"),
    [
        ("[optimiser]\nlr = 8.0\n", "--set space=unit --set optimiser.clamp_every=1 --set optimiser.lr=0.5"),
        ('[optimiser]\nlr = 8.0\nkind = "adamw"\n', "--set optimiser.clamp_every=1 --set optimiser.lr=2"),
        ('space = "unit"\n[optimiser]\nclamp_every = 100\n', "pass --set optimiser.clamp_every=1"),
    ],
)
def test_where_pixels_clip_the_options_that_keep_them_inside_are_named(
    tmp_path: Path, config: str, remedy: str
) -> None:
    written(tmp_path / "set.h5", attributes={"config": config})
    assert export_png(tmp_path / "set.h5", tmp_path / "out").endswith(remedy)


def test_no_other_distillation_is_suggested_where_it_would_not_help(tmp_path: Path) -> None:
    inside = torch.full((6, 3, 5, 7), 0.5)
    for number, fields in enumerate(
        (
            {"images": inside, "attributes": {"config": "[optimiser]\nlr = 8.0\n"}},
            {"attributes": {"config": 'space = "unit"\n[optimiser]\nclamp_every = 1\n'}},
            {"attributes": {"method": "imported"}},
        )
    ):
        written(tmp_path / "set.h5", **fields)
        assert "--set" not in export_png(tmp_path / "set.h5", tmp_path / str(number))
