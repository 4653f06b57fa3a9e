"""Tables of results: names stay inside their cells, and no text names a folder of this machine."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from dsdistill.bench import results as stored
from dsdistill.bench import tables
from dsdistill.bench.cells import Cell, Evaluation
from dsdistill.bench.expert_set import Environment, slug
from dsdistill.errors import UserError
from tests.helpers.bench import result, row

NASTY = "a|b\\|c\nd <img src=x>\x1b[31m"


def test_names_stay_inside_the_cells_of_markdown() -> None:
    cells = [result(NASTY, dataset=NASTY, rows=[row("distilled", [1.0], NASTY)])]
    text = tables.markdown(cells, [NASTY])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {14}
    assert "\x1b" not in text
    assert not re.search(r"(?<!\\)<img", text)


def test_csv_computes_no_name_and_keeps_numbers() -> None:
    cells = [result("=HYPERLINK(1)", dataset="@sum", rows=[row("distilled", [1.0], "-cnn")], machine="+1")]
    (read,) = csv.DictReader(io.StringIO(tables.csv_text(cells)))
    names = {key: read[key] for key in ("method", "dataset", "network", "machine")}
    assert names == {"method": "'=HYPERLINK(1)", "dataset": "'@sum", "network": "'-cnn", "machine": "'+1"}
    assert (float(read["mean"]), int(read["seed"]), float(read["distil_seconds"])) == (1.0, 0, 50.0)


FOLDERS = {
    "dataset": "folder:/home/anna/pets",
    "config": 'method = "dm"\n\n[data]\nname = "folder:/srv/anna/pets"\nroot = "/srv/anna"\n',
    "settings": {"distil": {"data": {"name": "folder:/home/anna/pets"}, "method": "/home/anna/mine.toml"}},
    "commands": ["dsdistill distill --root /home/anna/data --dataset folder:/home/anna/pets"],
}


def test_results_of_earlier_versions_are_told_without_folders(tmp_path: Path) -> None:
    table = result().to_dict() | FOLDERS
    table["evaluations"] = json.loads(json.dumps(table["evaluations"], default=vars))
    table["evaluations"][0]["report"] |= {"file": "/home/anna/set.h5", "dataset": "folder:/home/anna/pets"}
    (tmp_path / "result.json").write_text(json.dumps(table))
    found = stored.read(tmp_path / "result.json")
    assert "anna" not in json.dumps(found.to_dict())
    assert (found.dataset, found.report["file"]) == ("folder:pets", "set.h5")
    assert found.config == 'method = "dm"\n\n[data]\nname = "folder:pets"\n'
    problems = ["not finished: x (no such folder: /srv/anna/pets)"]
    written = tables.write(tmp_path, "s", [found], problems)
    assert not [path.name for path in written if "anna" in path.read_text()]
    assert "- not finished: x (no such folder: pets)" in (tmp_path / "table.md").read_text()


def test_commands_for_people_name_no_folder_of_this_machine() -> None:
    cell = Cell(
        dataset="folder:/home/anna/pets",
        method="/home/anna/mine.toml",
        ipc=1,
        seed=0,
        network="mlp",
        options={"data": {"name": "folder:/home/anna/pets"}, "engine.supply.path": "/home/anna/pool.h5"},
        evaluations=(Evaluation(protocol="/home/anna/p.toml", networks=("mlp",), seed=0),),
    )
    environment = Environment(root=Path("/home/anna/data"))
    text = "\n".join(cell.commands(Path("/home/anna/results"), environment))
    assert "anna" not in text
    assert "-o results/folder-pets/mine-ipc1-seed0/set.h5" in text
    assert "--dataset folder:pets" in text
    words = cell.distil(Path("/home/anna/results"), environment)  # those that are run
    assert {"/home/anna/data", "folder:/home/anna/pets"} <= set(words)


def test_names_of_folders_are_short() -> None:
    assert slug("folder:/a/my pets") == "folder-my-pets"
    assert len(slug("猫" * 300).encode()) <= 120


def test_tables_that_cannot_be_written_are_found_before(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"suite": "x", "cells": []}')
    tables.check_replaceable(tmp_path)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "a.svg").touch(0o444)
    with pytest.raises(UserError, match=r"a\.svg is write-protected"):
        tables.check_replaceable(tmp_path)
