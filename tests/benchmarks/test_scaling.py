"""The benchmark of several processes times what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.scaling import QUICK, Case


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    scaling.prepare(folder, QUICK)
    return folder


@pytest.mark.parametrize("case", scaling.cases(QUICK), ids=lambda case: case.name)
def test_every_command_runs_and_is_timed(case: Case, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        scaling.timed(tmp_path / "seconds", case.words(folder, tmp_path / "output.h5"))
    assert ended.value.code == 0
    assert 0 < float((tmp_path / "seconds").read_text()) < 60


def test_a_command_that_fails_is_not_timed(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        scaling.timed(tmp_path / "seconds", ["evaluate", str(tmp_path / "none.h5")])
    assert not (tmp_path / "seconds").exists()


def test_two_processes_that_take_as_long_as_one_are_half_as_efficient() -> None:
    case = Case("label", 600, "views", lambda folder, output: [])
    row = scaling.row(case, [(3.0, 3.0, 3.0), (3.0, 1.5, 4.0), (2.0, 2.0, 2.5)], 2)
    assert row["efficiency"] == 0.5
    assert row["efficiencies"] == [0.5, 0.5, 1.0]
    assert row["possible"] == 0.8  # as many that share nothing, side by side
    assert (row["a_second_of_one"], row["a_second"]) == (200, 300)
    assert scaling.sentence(row) == (
        "label        200 -> 300 views a second, efficiency 50 % (50..100 %); the machine allows 80 %"
    )


def test_unknown_kinds_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--only", "label,baking"])
    with pytest.raises(SystemExit):
        scaling.main()
    assert "there is no baking" in capsys.readouterr().err


def test_rows_of_other_kinds_stay_in_the_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def measured(cases: list[Case], *_: object) -> list[dict[str, object]]:
        return [{"case": case.name, "run": len(runs)} for case in cases]

    runs: list[list[str]] = []
    monkeypatch.setattr(scaling, "measure", measured)
    monkeypatch.setattr(scaling, "ARTIFACTS", tmp_path)
    for only in ("label,evaluate", "label"):
        runs.append([only])
        monkeypatch.setattr(sys, "argv", ["scaling.py", "--only", only])
        scaling.main()
    rows = json.loads((tmp_path / "scaling.json").read_text())["rows"]
    assert [(row["case"], row["run"]) for row in rows] == [("evaluate", 1), ("label", 2)]
    assert all(row["date"] for row in rows)
