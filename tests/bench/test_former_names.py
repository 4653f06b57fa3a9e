"""Results of earlier versions, which call the baseline full ``whole``."""

from __future__ import annotations

import json
from pathlib import Path

from dsdistill.bench import cell_files, published, results
from dsdistill.bench.planning import plan
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
    table["evaluations"][0]["rows"][1]["set"] = "whole"
    path = tmp_path / "result.json"
    path.write_text(json.dumps(table))
    assert [each.set for each in results.read(path).evaluations[0].rows] == ["distilled", "full"]


def test_a_cell_that_was_begun_under_the_former_name_is_the_same_cell(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SUITE)
    (cell,) = plan(load_suite(tmp_path / "mine.toml"))
    cell_files.write_settings([cell], tmp_path)
    file = cell.settings_file(tmp_path)
    before = cell_files.state(cell, tmp_path)
    file.write_text(file.read_text().replace('"full"', '"whole"'))
    assert '"whole"' in file.read_text()
    assert cell_files.state(cell, tmp_path) == before == "to do"


def test_published_accuracies_of_the_full_training_set_are_found() -> None:
    found = published.find("cifar10", "full", 10)
    assert found is not None
    assert (found.method, found.ipc) == ("full", 0)
    assert found == published.find("cifar10", "whole", 1)
