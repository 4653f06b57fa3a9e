"""Successive halving over settings of the package's own recipe."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dsdistill
from benchmarks import halving
from benchmarks.halving import EXPERTS, Candidate
from dsdistill.config.options import flatten
from dsdistill.distillation import config as configs
from dsdistill.errors import UserError
from dsdistill.experts import config as expert_configs

BEST = "average: 0.99"


class ScoredRuns:
    """Runs whose accuracies are made up: one candidate is the best."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def rows(self, field: Sequence[tuple[Candidate, int]], seconds: float) -> list[dict[str, Any]]:
        self.asked += [(candidate.name, seconds) for candidate, _ in field]
        return [
            {"candidate": name, "accuracy": float(name == BEST) - len(name) / 1e3}
            for name in (candidate.name for candidate, _ in field)
        ]


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
def test_every_change_is_one_of_the_recipe_or_of_its_experts(candidate: Candidate) -> None:
    data = {"data": {"name": "fashion-mnist"}, "method": "dsdistill", "ipc": 10}
    options = candidate.options
    of_experts = options.pop(EXPERTS, {})
    tables = [(configs.as_table(configs.resolve({**data, **extra}))) for extra in ({}, options)]
    plain, changed = map(flatten, tables)
    asked = flatten(options)
    assert {key: changed[key] for key in asked} == asked
    experts = {"recipe": "dsdistill", "data": {"name": "fashion-mnist"}}
    usual, other = (
        dataclasses.asdict(expert_configs.resolve({**experts, **each})) for each in ({}, of_experts)
    )
    assert {key: other[key] for key in of_experts} == of_experts
    assert any(changed[key] != plain.get(key) for key in asked) or usual != other


class Calls:
    """Stands in for the package: keeps what it is called with, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        monkeypatch.setenv("DSDISTILL_CACHE", "elsewhere")
        row = SimpleNamespace(mean=80.0, values=[79.0, 81.0])
        results = {
            "train_experts": None,
            "distill": SimpleNamespace(iterations=7),
            "evaluate": SimpleNamespace(rows=(row,)),
        }
        for name in results:
            monkeypatch.setattr(dsdistill, name, partial(self._call, name, results[name]))

    def _call(self, name: str, result: Any, file: Path, **options: Any) -> Any:
        self.calls.append((name, options))
        return result


def test_runs_are_of_held_out_images_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = Calls(monkeypatch)

    def row(seconds: float) -> dict[str, Any]:
        runs = halving.Runs(tmp_path, "digits", 1, {"epochs": 1}, workers=1)
        return runs.rows([(Candidate(), 0)], seconds)[0]

    first = row(20.0)
    assert (first["accuracy"], first["iterations"]) == (80.0, 7)
    (_, distilled), (_, evaluated) = stand_in.calls
    assert 19.0 < float(distilled["budget"].removesuffix("s")) <= 20.0
    assert distilled["experts"] is None
    train, test = distilled["dataset"]["train"], distilled["dataset"]["test"]
    assert evaluated["dataset"]["test"] is test
    assert len(train[0]) + len(test[0]) == 1347  # the training images of digits, and no test image
    assert row(20.0) == first
    assert len(stand_in.calls) == 2
    assert row(40.0) == {**first, "seconds": 40.0}
    assert len(stand_in.calls) == 4


def test_experts_of_a_candidate_are_trained_in_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = Calls(monkeypatch)
    clock = iter([100.0, 112.0])
    monkeypatch.setattr(halving.time, "monotonic", lambda: next(clock))
    runs = halving.Runs(tmp_path, "digits", 1, {}, workers=1)
    candidate = Candidate((("experts", "two"), ("network", "32 maps")))
    runs.rows([(candidate, 0)], 20.0)
    (_, experts), (_, distilled), _ = stand_in.calls
    assert (experts["overrides"], experts["network"]) == (["count=2"], "convnet-w32")
    assert distilled["budget"] == "8.0s"
    assert distilled["experts"].parent.is_dir()
    assert distilled["options"] == {"network": "convnet-w32"}


def test_a_candidate_without_time_for_its_images_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Calls(monkeypatch)

    def refuse(*_: Any, **__: Any) -> None:
        raise UserError("no time is left")

    monkeypatch.setattr(dsdistill, "distill", refuse)
    runs = halving.Runs(tmp_path, "digits", 1, {}, workers=1)
    (row,) = runs.rows([(Candidate(), 0)], 1.0)
    assert (row["accuracy"], row["refused"]) == (0.0, "no time is left")


def test_the_record_has_every_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halving, "Runs", lambda *_: ScoredRuns())
    monkeypatch.setattr(halving, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["halving.py", str(tmp_path / "runs"), "--candidates", "4"])
    halving.main()
    record = json.loads((tmp_path / "halving-ipc10.json").read_text())
    assert len(record["rows"]) == 4 + 2 + 1
    assert record["dataset"] == "fashion-mnist"
