"""The command evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dsdistill
from dsdistill.storage import set_file
from tests.helpers.cli import FAST, Captured, succeed


def test_evaluate_prints_and_stores_the_results(capsys: Captured, made: Path) -> None:
    results = made.with_suffix(".json")
    out, _ = succeed(capsys, "evaluate", made, *FAST, "--json", results)
    assert "distilled" in out
    assert "random" in out
    assert [row["set"] for row in json.loads(results.read_text())["rows"]] == ["distilled", "random"]
    out, _ = succeed(capsys, "info", made)
    assert out.count("2 students") == 2
    assert out.count(" epochs: ") == 2
    succeed(capsys, "evaluate", made, *FAST, "--no-save", "--baselines", "")
    assert len(set_file.results(made)) == 2


@pytest.mark.slow
def test_evaluate_takes_a_seed_a_precision_and_scores(
    capsys: Captured, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsdistill.runtime.device._multiplies_bf16", lambda device: True)
    results = made.with_suffix(".json")
    words = ["evaluate", made, *FAST, "--json", results, "--no-save"]
    succeed(capsys, *words, "--seed", "3", "--precision", "fp32", "--scores")
    found = json.loads(results.read_text())
    assert (found["seed"], found["precision"]) == (3, "fp32")
    plain = ["distilled-plain", "random-plain"]
    assert [row["set"] for row in found["rows"]] == ["distilled", "random", *plain]
    report = dsdistill.evaluate(
        made, epochs=2, repeats=2, networks="convnet2-w8", seed=3, precision="fp32", save=False
    )
    assert [row.values for row in report.rows] == [row["values"] for row in found["rows"][:2]]
