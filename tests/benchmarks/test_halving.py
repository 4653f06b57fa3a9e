"""Successive halving over settings of the package's own recipe."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dsdistill
from benchmarks import halving, isolation
from benchmarks.halving import CHANGES, CORE, EXPERTS, Candidate, Job
from dsdistill.config.options import flatten
from dsdistill.distillation import config as configs
from dsdistill.errors import OutOfTime, UserError
from dsdistill.experts.trainer import Pace
from dsdistill.pipeline import experts
from dsdistill.runtime.callbacks import Observer

BEST = "average: 0.99"
WHERE = {"dataset": "fashion-mnist", "ipc": 10}


class ScoredRuns:
    """Runs whose accuracies are made up: one candidate is the best."""

    dataset, ipc = WHERE.values()

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def rows(self, field: Sequence[tuple[Candidate, int]], seconds: float) -> list[dict[str, Any]]:
        self.asked += [(candidate.name, seconds) for candidate, _ in field]
        return [
            {"candidate": name, "accuracy": float(name == BEST) - len(name) / 1e3}
            for name in (candidate.name for candidate, _ in field)
        ]

    def beside(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        earlier = {"accuracy": 0.0, "seconds": 10.0}
        return [earlier | {"candidate": name} for name in ("network: 32 maps", "average: 0.99; lr: 0.03")]


def test_candidates_are_the_recipe_single_changes_and_combinations_of_different_parts() -> None:
    field = halving.candidates(16, seed=0, **WHERE)
    assert field == halving.candidates(16, seed=0, **WHERE) != halving.candidates(16, seed=1, **WHERE)
    assert len(set(field)) == 16
    assert field[0] == Candidate()
    assert [len(each.changes) for each in field[1:8]] == [1] * 7
    for each in field[8:]:
        assert len(each.changes) in (2, 3)
        assert len({part for part, _ in each.changes}) == len(each.changes)


def test_candidates_are_named() -> None:
    for each in halving.candidates(16, seed=0, **WHERE)[1:]:
        assert Candidate.named(each.name) == each
    for name in ("average: 0.9", "mean: 0.99"):
        with pytest.raises(KeyError):
            Candidate.named(name)


def test_few_parts_have_few_candidates() -> None:
    field = halving.candidates(
        20, 0, **WHERE, parts={part: CHANGES[part] for part in ("average", "schedule")}
    )
    average, schedule = ("average", "0.99"), ("schedule", "cosine")
    assert {each.changes for each in field} == {(), (average,), (schedule,), (average, schedule)}
    assert len(field) == 4


def test_the_better_half_goes_on_with_twice_the_seconds() -> None:
    runs = ScoredRuns()
    field = [Candidate(), Candidate((("average", "0.99"),)), *list(halving.singles(CHANGES, **WHERE))[:2]]
    rows = halving.halve(runs, field, 10.0)  # type: ignore[arg-type]
    assert [seconds for _, seconds in runs.asked] == [10] * 4 + [20] * 2 + [40]
    assert runs.asked[-1][0] == rows[-1]["candidate"] == BEST
    shorter = ScoredRuns()
    assert halving.halve(shorter, field, 10.0, rounds=2) == rows[:-1]  # type: ignore[arg-type]


def test_an_ablation_changes_one_part_at_a_time_for_every_seed() -> None:
    runs = ScoredRuns()
    halving.ablate(runs, 10.0, seeds=2)  # type: ignore[arg-type]
    assert runs.asked[:2] == [("as it is", 10.0)] * 2
    its_own = 6  # quarters, 64 maps, frequencies, and all forty images, which three of the values are
    changes = sum(map(len, (CHANGES | CORE).values())) - its_own
    assert len(runs.asked) == 2 * (1 + changes)
    assert {"snapshots: the last epoch alone", "snapshots: none, fresh networks"} <= {
        name for name, _ in runs.asked
    }


def test_an_ablation_of_some_parts_has_others_that_took_as_long_beside_it() -> None:
    runs = ScoredRuns()
    parts = {"start": CHANGES["start"], "snapshots": CORE["snapshots"]}
    rows = halving.ablate(runs, 10.0, 1, parts)  # type: ignore[arg-type]
    asked = [f"{part}: {value}" for part, values in parts.items() for value in values]
    assert [row["candidate"] for row in rows] == ["as it is", *asked, "network: 32 maps"]
    assert len(halving.ablate(runs, 20.0, 1, parts)) == len(rows) - 1  # type: ignore[arg-type]


OF_TEN = {("images", "quarters"), ("network", "64 maps"), ("images at once", "40 of a class")}
OF_FIFTY = {("images", "whole"), ("network", "32 maps")}
OF_BOTH = {("images at once", "all"), ("images at once", "100 of a class")}


@pytest.mark.parametrize(("ipc", "its_own", "other"), [(10, OF_TEN, OF_FIFTY), (50, OF_FIFTY, OF_TEN)])
def test_what_the_recipe_has_at_an_ipc_is_no_change_of_it(
    ipc: int, its_own: set[tuple[str, str]], other: set[tuple[str, str]]
) -> None:
    values = {change for each in halving.singles(CHANGES, "fashion-mnist", ipc) for change in each.changes}
    assert not values & (its_own | OF_BOTH)
    assert other | {("images at once", "20 of a class")} <= values


def test_the_search_leaves_the_snapshots() -> None:
    field = halving.candidates(100, seed=0, **WHERE)
    assert {part for each in field for part, _ in each.changes} == set(CHANGES)


def job(candidate: Candidate, seconds: float = 20.0) -> Job:
    return Job(candidate.name, "fashion-mnist", 10, 0, seconds, candidate.options, {}, 1)


def of_experts(candidate: Candidate, folder: Path, epochs: int = 16) -> dict[str, Any]:
    """Return the options that experts of a candidate are trained with, for so many epochs."""
    options = {key: value for key, value in candidate.options.items() if key != EXPERTS}
    data = {"data": {"name": "fashion-mnist"}, "ipc": 10}
    config = configs.resolve({**data, "method": job(candidate)._recipe(folder), **options})
    training = experts.plan(config, experts.Scale("laptop", epochs)).config
    return {**dataclasses.asdict(training), "recipe": ""}


@pytest.mark.parametrize(
    ("ipc", "candidate"),
    [(ipc, each) for ipc in (10, 50) for each in halving.singles(CHANGES | CORE, "fashion-mnist", ipc)],
    ids=lambda each: each.name if isinstance(each, Candidate) else str(each),
)
def test_every_change_is_one_of_the_recipe_or_of_its_experts(
    ipc: int, candidate: Candidate, tmp_path: Path
) -> None:
    data = {"data": {"name": "fashion-mnist"}, "method": "dsdistill", "ipc": ipc}
    options = candidate.options
    own = options.pop(EXPERTS, {})
    tables = [(configs.as_table(configs.resolve({**data, **extra}))) for extra in ({}, options)]
    plain, changed = map(flatten, tables)
    asked = flatten(options)
    assert {key: changed[key] for key in asked} == asked
    assert all(changed[key] != plain.get(key) for key in asked)
    if own:
        usual, other = of_experts(Candidate(), tmp_path), of_experts(candidate, tmp_path)
        kept = {key: value for key, value in own.items() if key != "epochs"}
        assert {key: value for key, value in other.items() if value != usual[key]} == kept
    assert own or asked


def test_experts_have_as_many_epochs_as_a_quarter_of_the_time_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experts, "pace_of", lambda *_: Pace(epoch=2.0, metrics=0.0))

    def epochs(candidate: Candidate, seconds: float) -> int:
        options = {key: value for key, value in candidate.options.items() if key != EXPERTS}
        data = {"data": {"name": "fashion-mnist"}, "ipc": 10}
        config = configs.resolve({**data, "method": job(candidate)._recipe(tmp_path), **options})
        with Observer(()) as observer:
            return experts.scale_within(config, seconds / 4, observer, None).epochs

    usual, two, many, last = (
        Candidate(changes)
        for changes in (
            (),
            (("experts", "two"),),
            (("experts", "of up to 48 epochs, doubling"),),
            (("snapshots", "the last epoch alone"),),
        )
    )
    assert [epochs(each, 40.0) for each in (usual, two, many, last)] == [4, 2, 4, 4]
    assert [epochs(each, 640.0) for each in (usual, two, many, last)] == [16, 16, 48, 16]
    assert of_experts(two, tmp_path)["count"] == 2


class Calls:
    """Stands in for the package: keeps what it is called with, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        for name in ("DSDISTILL_CACHE", "TORCHINDUCTOR_CACHE_DIR"):
            monkeypatch.setenv(name, "elsewhere")
        monkeypatch.setattr(isolation, "processes", ThreadPoolExecutor)
        row = SimpleNamespace(mean=80.0, values=[79.0, 81.0])
        results = {
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
    monkeypatch.setattr(halving.time, "monotonic", lambda: 100.0)

    def row(seconds: float) -> dict[str, Any]:
        runs = halving.Runs(tmp_path, "digits", 1, {"epochs": 1}, workers=1)
        return runs.rows([(Candidate(), 0)], seconds)[0]

    first = row(20.0)
    assert (first["accuracy"], first["iterations"]) == (80.0, 7)
    (_, distilled), (_, evaluated) = stand_in.calls
    assert (distilled["budget"], distilled["method"]) == ("20s", "dsdistill")
    train, test = distilled["dataset"]["train"], distilled["dataset"]["test"]
    assert evaluated["dataset"]["test"] is test
    assert len(train[0]) + len(test[0]) == 1347  # the training images of digits, and no test image
    assert row(20.0) == first
    assert len(stand_in.calls) == 2
    assert (longer := row(40.0)) == {**first, "seconds": 40.0, "wall_seconds": 0.0}
    assert len(stand_in.calls) == 4
    assert halving.Runs(tmp_path, "digits", 1, {"epochs": 1}, workers=1).beside([longer]) == [first]
    assert halving.Runs(tmp_path, "digits", 1, {"epochs": 2}, workers=1).beside([longer]) == []


@pytest.mark.parametrize(("images", "epochs"), [(500, 600), (2000, 150), (100, 1200)])
def test_students_take_as_many_steps_of_every_set(
    monkeypatch: pytest.MonkeyPatch, images: int, epochs: int
) -> None:
    monkeypatch.setattr(dsdistill, "load", lambda file: range(images))
    told = dataclasses.replace(job(Candidate()), student={"steps": 1200, "repeats": 2})
    expected = {"epochs": epochs, "repeats": 2, "protocol": "dm"}
    assert told._student(Path("set.h5")) == expected


def test_every_run_has_an_empty_cache_for_experts_and_compiled_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Calls(monkeypatch)
    found = []

    def distill(*_: Any, method: str, options: dict[str, Any], **__: Any) -> Any:
        cache, code = (Path(os.environ[name]) for name in ("DSDISTILL_CACHE", "TORCHINDUCTOR_CACHE_DIR"))
        recipes = {cache / f"{name}.toml" for name in ("dsdistill", "experts")}
        found.append((cache, set(cache.rglob("*")) - recipes - {code}, code.parent == cache))
        assert (Path(method).parent == cache, options) == (True, {"network": "convnet-w32"})
        (cache / "experts").mkdir()
        code.mkdir(exist_ok=True)
        return SimpleNamespace(iterations=7)

    monkeypatch.setattr(dsdistill, "distill", distill)
    runs = halving.Runs(tmp_path, "digits", 1, {}, workers=2)
    candidate = Candidate((("experts", "of up to 48 epochs, doubling"), ("network", "32 maps")))
    for seed in range(2):
        runs.rows([(candidate, seed)], 20.0)
    assert len({cache for cache, _, _ in found}) == 2
    assert [(left, inside) for _, left, inside in found] == [(set(), True)] * 2
    assert all(list(cache.glob("experts")) and not list(cache.glob("code")) for cache, _, _ in found)


def test_a_candidate_without_time_for_its_images_is_the_last_and_a_mistake_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Calls(monkeypatch)
    errors: list[UserError] = [OutOfTime("no time is left"), UserError("a mistake")]

    def refuse(*_: Any, **__: Any) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(dsdistill, "distill", refuse)
    runs = halving.Runs(tmp_path, "digits", 1, {}, workers=1)
    (row,) = runs.rows([(Candidate(), 0)], 1.0)
    assert (row["accuracy"], row["refused"]) == (0.0, "no time is left")
    with pytest.raises(UserError, match="a mistake"):
        runs.rows([(Candidate(), 1)], 1.0)


def test_the_record_has_every_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halving, "Runs", lambda *_: ScoredRuns())
    monkeypatch.setattr(halving, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["halving.py", str(tmp_path / "runs"), "--candidates", "4"])
    halving.main()
    record = json.loads((tmp_path / "halving-ipc10.json").read_text())
    assert len(record["rows"]) == 4 + 2 + 1 + 2  # the last two are of an earlier search
    assert record["dataset"] == "fashion-mnist"
