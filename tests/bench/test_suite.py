"""Suites that others wrote: planned, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomli_w

from dsdistill import UserError
from dsdistill.bench.cells import Cell
from dsdistill.bench.planning import plan
from dsdistill.bench.suite import load_suite
from dsdistill.config.presets import SUITES
from dsdistill.files import parse_toml
from tests.helpers.mutants import mutated_toml, refusal

SUITE = """
title = "One cell"
datasets = ["digits"]
methods = ["{method}"]
ipcs = [1]
iterations = 3
network = "{network}"
protocol = "{protocol}"
"""


def cell_of(folder: Path, **names: str) -> Cell:
    """Plan a suite of one cell."""
    path = folder / "mine.toml"
    path.write_text(SUITE.format(**names))
    (cell,) = plan(load_suite(path))
    return cell


def test_mutants_of_suites(tmp_path: Path) -> None:
    texts = [SUITES.find(name).read_text() for name in SUITES.names()]
    path, found = tmp_path / "mine.toml", set()

    def planned() -> None:
        for cell in plan(load_suite(path))[:3]:
            json.dumps(cell.settings())
            parse_toml(tomli_w.dumps(cell.settings()))

    for seed in range(60):
        path.write_bytes(mutated_toml(texts[seed % len(texts)], seed))
        sentence = refusal(planned)
        assert "\n" not in sentence, seed
        assert len(sentence) < 1500, seed
        found.add("refused" if sentence else "planned")
    assert found == {"refused", "planned"}


def test_students_are_those_that_the_protocol_has_for_a_network(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, method="frepo", network="wideconvnet2-w4-inputbatch", protocol="own")
    assert cell.evaluations[0].networks == ("wideconvnet2-w4-none",)


def test_what_is_evaluated_by_transfer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"suites do not teach students other data.*--transfer"):
        cell_of(tmp_path, method="dm", network="convnet2-w4", protocol="krr-st")
