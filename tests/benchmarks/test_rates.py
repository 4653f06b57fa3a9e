"""Accuracy against bytes: sets of any number of images per class, equal or not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from benchmarks import rates
from dsdistill.data.preprocess import Standardise
from dsdistill.errors import UserError
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet


def write_set(path: Path, counts: tuple[int, ...], ipc: int | str) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    images = torch.rand(len(labels), 1, 4, 4)
    names = tuple("abc"[: len(counts)])
    attributes: dict[str, Any] = {"method": "dm", "ipc": ipc}
    learned = DistilledSet(images, labels, names, Standardise.of((0.5,), (0.5,)), attributes=attributes)
    set_file.write(path, learned, "float32")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stand in for evaluations, and keep the epochs that are asked for."""
    epochs_asked: list[int] = []

    def evaluate(file: Path, *, networks: str, epochs: int, json: Path, **options: Any) -> None:
        epochs_asked.append(epochs)
        row = {"set": "distilled", "network": networks, "epochs": epochs, "images": 2, "values": [50.0]}
        row |= {"mean": 50.0, "std": 0.0, "image_bytes": None}
        about = {"protocol": "dm", "machine": "a machine", "date": "2026-01-02", "seed": 0}
        rows = [row]
        if options["baselines"]:
            rows.append(row | {"set": options["baselines"], "images": 2000, "image_bytes": 999.6})
        json.write_text(dumps({**about, "rows": rows}))

    dumps = json.dumps
    monkeypatch.setattr(dsdistill, "evaluate", evaluate)
    return epochs_asked


def rows(
    folder: Path, name: str, counts: tuple[int, ...], ipc: int | str, baselines: str = ""
) -> list[dict[str, Any]]:
    write_set(folder / f"{name}.h5", counts, ipc)
    return [
        row
        for bits in (32, 4, 2)
        for row in rates.measured(folder / f"{name}.h5", bits, baselines, "convnet-w32", 1, folder)
    ]


@pytest.mark.parametrize(
    ("ipc", "epochs"), [(1, 300), (2, 300), (10, 100), (20, 100), (50, 100), (160, 100), (1000, 100)]
)
def test_students_of_more_images_have_fewer_epochs(ipc: int, epochs: int) -> None:
    assert rates.epochs_for(ipc) == epochs


def test_sets_of_any_number_of_images_have_rows_and_a_table(tmp_path: Path, asked: list[int]) -> None:
    found = rows(tmp_path, "many", (160, 160), 160) + rows(tmp_path, "mixed", (3, 12, 15), "3,12,15")
    assert asked == [100] * 6
    assert [(row["ipc"], row.get("counts")) for row in found] == 3 * [(160, None)] + 3 * [(10, "3 to 15")]
    page = rates.tables(sorted(found, key=rates._order))
    assert page.index("## 3 to 15 images per class") < page.index("## 160 images per class")


def test_a_mixed_set_is_not_taken_for_one_of_as_many_images_on_average(
    tmp_path: Path, asked: list[int]
) -> None:
    found = rows(tmp_path, "mixed", (5, 15), "5,15") + rows(tmp_path, "equal", (10, 10), 10)
    assert len({rates._key(row) for row in found}) == len(found) == 6
    page = rates.tables(sorted(found, key=rates._order))
    assert page.count("## ") == 2


def test_real_images_have_their_own_bytes_and_a_curve_of_their_own(
    tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = rows(tmp_path, "equal", (10, 10), 10, "herding@10ipc")
    assert {row["bytes"] for row in found if row["set"] == "herding@10ipc"} == {1000}
    assert rates.tables(found).count("herding@10ipc 50.00 ± 0.00 (2,000 images, 1 KB)") == 3
    monkeypatch.setattr(rates, "FILE", tmp_path / "rates.json")
    rates.draw([row for row in found if row["bits"] > 2])
    assert not (tmp_path / "rates.svg").exists()
    rates.draw(found)
    drawn = (tmp_path / "rates.svg").read_text()
    assert "real images, herding, protocol dm" in drawn
    assert ">dm<" in drawn
    assert not {row["set"] for row in rows(tmp_path, "again", (10, 10), 10, "full")} - {"distilled"}


def test_rows_of_other_epochs_are_not_compared(
    tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "FILE", tmp_path / "rates.json")
    monkeypatch.setattr(rates, "RUNS", tmp_path)
    write_set(tmp_path / "equal.h5", (10, 10), 10)
    monkeypatch.setattr(sys, "argv", ["rates.py", str(tmp_path / "equal.h5"), "--bits", "32"])
    rates.main()
    record = json.loads(rates.FILE.read_text())
    (row,) = record["rows"]
    rates.FILE.write_text(json.dumps(record | {"rows": [row | {"bits": 2, "epochs": 50}, row]}))
    rates.main()
    assert [each["bits"] for each in json.loads(rates.FILE.read_text())["rows"]] == [32]


def test_real_images_of_no_size_are_refused_before_anything_is_evaluated(
    asked: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rates.py", "set.h5", "--baselines", "random@bytes,herding"])
    with pytest.raises(SystemExit, match="2"):
        rates.main()
    assert "herding: say what images fill, as in herding@bytes or herding@1ipc" in capsys.readouterr().err
    assert not asked


def test_a_set_in_eight_bits_is_taken_as_it_is_and_in_fewer(tmp_path: Path, asked: list[int]) -> None:
    write_set(tmp_path / "whole.h5", (10, 10), 10)
    dsdistill.encode(tmp_path / "whole.h5", tmp_path / "eight.h5", bits=8)
    eight, two = (
        rates.measured(tmp_path / "eight.h5", bits, "", "convnet-w32", 1, tmp_path)[0] for bits in (8, 2)
    )
    assert (eight["storage"], two["storage"][:6]) == ("8 bits, scaled by image", "2 bits")
    assert eight["bytes"] > two["bytes"]
    with pytest.raises(UserError, match="has 8 bits a pixel: leave --bits 32 out"):
        rates.measured(tmp_path / "eight.h5", 32, "", "convnet-w32", 1, tmp_path)
