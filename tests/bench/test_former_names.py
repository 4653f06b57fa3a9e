"""Results of earlier versions, which call the baseline full ``whole``."""

from __future__ import annotations

import json
from pathlib import Path

from dsdistill.bench import published, results
from dsdistill.bench.cells import plan
from dsdistill.bench.suite import load_suite
from tests.helpers.bench import result, row

SUITE = """
title = "One cell"
datasets = ["digits"]
methods = ["dm"]
ipcs = [1]
network = "convnet2-w8"
baselines = ["random", "full"]
"""


def test_rows_of_a_result_are_read_under_the_name_of_today(tmp_path: Path) -> None:
    table = result(rows=[row("distilled", [50.0]), row("full", [90.0])]).to_dict()
    table["rows"][1]["set"] = "whole"
    path = tmp_path / "result.json"
    path.write_text(json.dumps(table))
    assert [each.set for each in results.read(path).rows] == ["distilled", "full"]


def test_a_cell_that_was_begun_under_the_former_name_is_the_same_cell(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SUITE)
    (cell,) = plan(load_suite(tmp_path / "mine.toml"))
    results.write_told([cell], tmp_path)
    file = cell.told_file(tmp_path)
    before = results.state(cell, tmp_path)
    file.write_text(file.read_text().replace('"full"', '"whole"'))
    assert '"whole"' in file.read_text()
    assert results.state(cell, tmp_path) == before == "to do"


def test_published_accuracies_of_the_full_training_set_are_found() -> None:
    found = published.find("cifar10", "full", 10)
    assert found is not None
    assert (found.method, found.ipc) == ("full", 0)
    assert found == published.find("cifar10", "whole", 1)
