"""Successive halving over settings of the package's own recipe."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import dsdistill
from benchmarks import halving
from benchmarks.halving import Candidate
from dsdistill.config.options import flatten
from dsdistill.distillation import config as configs

BEST = "average: 0.99"


class ScoredRuns:
    """Runs whose accuracies are made up: one candidate is the best."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def row(self, candidate: Candidate, seconds: float, seed: int = 0) -> dict[str, Any]:
        self.asked.append((candidate.name, seconds))
        return {
            "candidate": candidate.name,
            "accuracy": float(candidate.name == BEST) - len(candidate.name) / 1e3,
        }


def test_candidates_are_the_recipe_single_changes_and_combinations_of_different_parts() -> None:
    field = halving.candidates(16, seed=0)
    assert field == halving.candidates(16, seed=0) != halving.candidates(16, seed=1)
    assert len(set(field)) == 16
    assert field[0] == Candidate()
    assert [len(each.changes) for each in field[1:8]] == [1] * 7
    for each in field[8:]:
        assert len(each.changes) in (2, 3)
        assert len({part for part, _ in each.changes}) == len(each.changes)


def test_the_better_half_goes_on_with_twice_the_seconds() -> None:
    runs = ScoredRuns()
    field = [Candidate(), Candidate((("average", "0.99"),)), *list(halving.singles())[:2]]
    rows = halving.halve(runs, field, 10.0)  # type: ignore[arg-type]
    assert [seconds for _, seconds in runs.asked] == [10] * 4 + [20] * 2 + [40]
    assert runs.asked[-1][0] == rows[-1]["candidate"] == BEST


def test_an_ablation_changes_one_part_at_a_time_for_every_seed() -> None:
    runs = ScoredRuns()
    halving.ablate(runs, 10.0, seeds=2)  # type: ignore[arg-type]
    assert runs.asked[:2] == [("as it is", 10.0)] * 2
    assert len(runs.asked) == 2 * (1 + sum(map(len, halving.CHANGES.values())))


@pytest.mark.parametrize("candidate", list(halving.singles()), ids=lambda each: each.name)
def test_every_change_is_one_of_the_recipe(candidate: Candidate) -> None:
    data = {"data": {"name": "fashion-mnist"}, "method": "dsdistill", "ipc": 10}
    plain = flatten(configs.as_table(configs.resolve(data)))
    changed = flatten(configs.as_table(configs.resolve({**data, **candidate.options})))
    asked = flatten(candidate.options)
    assert {key: changed[key] for key in asked} == asked
    assert any(changed[key] != plain.get(key) for key in asked)


def test_runs_are_of_held_out_images_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    class Made:
        iterations = 7

    class Scored:
        class _Row:
            mean, values = 80.0, [79.0, 81.0]

        rows = (_Row,)

    monkeypatch.setenv("DSDISTILL_CACHE", "elsewhere")
    monkeypatch.setattr(dsdistill, "distill", lambda file, **told: calls.append(told) or Made)
    monkeypatch.setattr(dsdistill, "evaluate", lambda file, **told: calls.append(told) or Scored)
    (left := tmp_path / "cache-000" / "experts.h5").parent.mkdir()  # of a run that was stopped
    left.touch()
    runs = halving.Runs(tmp_path, "digits", 1, {"epochs": 1})
    row = runs.row(Candidate(), 20.0)
    assert (row["accuracy"], row["iterations"]) == (80.0, 7)
    assert not left.exists()
    distilled, evaluated = calls
    assert distilled["budget"] == "20s"
    train, test = distilled["dataset"]["train"], distilled["dataset"]["test"]
    assert evaluated["dataset"]["test"] is test
    assert len(train[0]) + len(test[0]) == 1347  # the training images of digits, and no test image
    again = halving.Runs(tmp_path, "digits", 1, {"epochs": 1})
    assert again.row(Candidate(), 20.0) == row
    assert len(calls) == 2
    assert again.row(Candidate(), 40.0) == {**row, "seconds": 40.0}
    assert len(calls) == 4


def test_the_record_has_every_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halving, "Runs", lambda *_: ScoredRuns())
    monkeypatch.setattr(halving, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["halving.py", str(tmp_path / "runs"), "--candidates", "4"])
    halving.main()
    record = json.loads((tmp_path / "halving-ipc10.json").read_text())
    assert len(record["rows"]) == 4 + 2 + 1
    assert record["dataset"] == "fashion-mnist"
