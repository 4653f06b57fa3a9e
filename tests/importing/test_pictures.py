"""Folders of pictures: names of folders, sizes, colours, and labels.csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.imports import imported, refused


def folder(path: Path, names: list[str], size: int = 8, mode: str = "L") -> Path:
    """Write two pictures a class, of the grey levels 0, 1, 2, …"""
    for number, name in enumerate(name for name in names for _ in range(2)):
        (path / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((size, size), number, np.uint8)).convert(mode).save(
            path / name / f"{number:03d}.png"
        )
    return path


NUMBERED = [f"new{number:03d}" for number in range(10)]


@pytest.mark.parametrize("names", [[str(n) for n in range(10)], NUMBERED, [f"{n:05d}" for n in range(10)]])
def test_folders_of_classes(tmp_path: Path, names: list[str]) -> None:
    distilled, summary = imported(folder(tmp_path / "pictures", names))
    assert torch.equal((distilled.images * 255).round().mean((1, 2, 3)), torch.arange(20.0))
    assert distilled.labels.tolist() == [number // 2 for number in range(20)]
    assert distilled.attributes["imported_from"] == "pictures (pictures)"
    assert (summary.space, distilled.attributes["protocol"]) == ("unit", "dm")
    assert any("by number: 'new000' is '0'" in sentence for sentence in summary.notices) == (
        names == NUMBERED
    )


def test_folders_may_be_few(tmp_path: Path) -> None:
    distilled, _ = imported(folder(tmp_path / "pictures", ["7", "3"]))
    assert distilled.labels.tolist() == [3, 3, 7, 7]


def test_colour_and_size_are_converted_and_told(tmp_path: Path) -> None:
    source = folder(tmp_path / "pictures", NUMBERED, size=16, mode="RGB")
    refused(source, "the images are 1x16x16 .* pass --size 16")
    distilled, summary = imported(source, size=8)
    assert distilled.images.shape == (20, 1, 8, 8)
    assert "20 pictures were resized to 8x8" in summary.notices
    assert "20 pictures were reduced to luma" in summary.notices


def test_sizes_that_differ_need_one(tmp_path: Path) -> None:
    source = folder(tmp_path / "pictures", NUMBERED)
    Image.new("L", (9, 8)).save(source / "new000" / "999.png")
    refused(source, "have 2 sizes; pass --size")
    assert len(imported(source, size=8)[0].images) == 21
    for file in source.rglob("*.png"):
        Image.new("L", (9, 8)).save(file)
    refused(source, "have 9x8 pixels; pass --size")


def test_labels_csv_decides_where_it_is(tmp_path: Path) -> None:
    source = folder(tmp_path / "pictures", ["b", "a"])
    (source / "labels.csv").write_text("file,label,class\na/002.png,5,5\nb/000.png,1,1\n")
    distilled, _ = imported(source)
    assert distilled.labels.tolist() == [1, 5]
    assert (distilled.images * 255).round().mean((1, 2, 3)).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("name,class\n", "lists no pictures"),
        ("name,class\na.png,1\n", "cannot read .*labels.csv as a table of file, label and class"),
        ("file,label,class\n../secret.png,1,1\n", "'../secret.png', which does not lie in the folder"),
        ("file,label,class\n/etc/passwd,1,1\n", "does not lie in the folder"),
        ("file,label,class\n..\\secret.png,1,1\n", "does not lie in the folder"),
        ("file,label,class\nC:\\secret.png,1,1\n", "does not lie in the folder"),
        ("file,label,class\nabsent.png,1,1\n", "absent.png"),
        ("file,label,class\n0/000.png,1,cat\n", "'cat' is none of digits's"),
    ],
)
def test_a_damaged_labels_csv_is_refused(tmp_path: Path, table: str, match: str) -> None:
    source = folder(tmp_path / "pictures", ["0", "1"])
    (source / "labels.csv").write_text(table)
    refused(source, match)


def test_folders_that_are_no_classes(tmp_path: Path) -> None:
    refused(folder(tmp_path / "pictures", ["cat", "dog"]), "'cat' is none of digits's")
    refused(folder(tmp_path / "one", ["0"]), "of no known format")
    refused(tmp_path / "one", "one class only", format="pictures")
    refused(
        folder(tmp_path / "labelled", ["0", "1"]),
        "--labels is for mtt, idc, dc, ddranking, tensors, not for pictures",
        labels=tmp_path / "l.pt",
    )
    (folder(tmp_path / "torn", ["0", "1"]) / "1" / "002.png").write_bytes(b"no picture")
    refused(tmp_path / "torn", "cannot read the picture")
