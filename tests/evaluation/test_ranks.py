"""Rows whose students several processes train are those of one process alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.cli import main
from dsdistill.errors import UserError
from dsdistill.evaluation.calibration import CalibrationSums
from dsdistill.evaluation.config import EvaluationConfig
from dsdistill.evaluation.evaluate import evaluate_set
from dsdistill.evaluation.exam import Examined
from dsdistill.evaluation.execution import ExecutionConfig
from dsdistill.evaluation.fidelity import FidelitySums
from dsdistill.evaluation.plan import PlannedRow, PlannedSet
from dsdistill.evaluation.row_parts import RowParts, decode, encode
from dsdistill.evaluation.rows import Row
from dsdistill.runtime.callbacks import Callback, Observer, StopRun
from dsdistill.runtime.device import threads
from dsdistill.runtime.ranks import ALONE, Ranks
from dsdistill.storage import set_results
from tests.helpers.callbacks import Told
from tests.helpers.evaluation import NETWORK, distilled, real_data, tiny, write_digits
from tests.helpers.processes import together
from tests.helpers.ranks import side_by_side


def rows(
    ranks: Ranks = ALONE,
    callbacks: Sequence[Any] = (),
    stack: bool = False,
    earlier: Sequence[Row] = (),
    **settings: Any,
) -> list[Row]:
    """Evaluate stripes by three students each, without the seconds."""
    config = EvaluationConfig(**{"networks": (NETWORK,), "baselines": ("random",)} | settings)
    found = evaluate_set(
        distilled(),
        real_data(),
        tiny(repeats=3, student=NETWORK),
        config,
        ExecutionConfig(stack=stack, ranks=ranks),
        earlier,
        Observer(callbacks, silent=not ranks.is_first),
    )
    return [dataclasses.replace(row, seconds=0.0) for row in found]


@pytest.mark.usefixtures("brief_choice")
def test_rows_do_not_depend_on_the_number_of_processes() -> None:
    heard: list[Row] = []
    progress: list[tuple[int, int]] = []

    class Rows(Callback):
        def on_row(self, row: Row) -> None:
            heard.append(dataclasses.replace(row, seconds=0.0))

        def on_progress(self, what: str, done: int, total: int) -> None:
            progress.append((done, total))

    def judged(ranks: Ranks = ALONE, callbacks: Sequence[Any] = ()) -> list[Row]:
        return rows(ranks, callbacks, networks=(NETWORK, "mlp"), baselines=("herding",), leak=True)

    alone = judged()
    assert len(alone) == 4
    for count in (2, 4):
        heard.clear()
        progress.clear()
        assert side_by_side(count, lambda ranks: judged(ranks, [Rows()])) == [alone] * count
        assert heard == alone  # once each, in order
        assert progress == sorted(progress)
        assert progress[-1][0] <= progress[-1][1]


def test_students_that_are_stacked_are_the_same_up_to_rounding() -> None:
    alone = rows(stack=True, baselines=())
    for shared in side_by_side(2, lambda ranks: rows(ranks, stack=True, baselines=())):
        for ours, theirs in zip(shared, alone, strict=True):
            assert ours.values == pytest.approx(theirs.values, abs=1.0)  # an image of 120


def test_rows_of_an_earlier_evaluation_are_not_trained_again() -> None:
    heard: list[str] = []

    class Rows(Callback):
        def on_row(self, row: Row) -> None:
            heard.append(row.set)

    alone = rows()
    for shared in side_by_side(2, lambda ranks: rows(ranks, [Rows()], earlier=alone[:1])):
        assert shared == alone
    assert heard == ["random"]


def test_a_callback_stops_all_processes() -> None:
    heard: list[str] = []

    class Stop(Told):
        def on_row(self, row: Row) -> None:
            raise StopRun("enough")

    first, *_ = side_by_side(2, lambda ranks: rows(ranks, [Stop(notify=heard.append)]))
    assert len(first) <= 1
    assert [sentence for sentence in heard if "stopped" in sentence] == [
        f"stopped by a callback with {len(first)} of 2 rows: enough; resume=True goes on"
    ]


def test_processes_with_other_options_are_refused() -> None:
    with pytest.raises(UserError, match="process 1 has other options than process 0"):
        side_by_side(2, lambda ranks: rows(ranks, seed=ranks.index))


# Dealing ----------------------------------------------------------------------------------------------------


def planned(name: str, repeats: int, decoded: int, teacher: bool = False) -> PlannedRow:
    each = PlannedSet(name, tiny(repeats=repeats), decoded, decoded, network="convnet3" if teacher else "")
    return PlannedRow("convnet3", each, None)


def test_students_are_dealt_evenly() -> None:
    plan = [planned("full", 3, 90), planned("distilled", 5, 9), planned("teacher", 1, 0, teacher=True)]
    dealt = side_by_side(2, lambda ranks: RowParts(plan, ranks, None))
    students = [[parts.own(place) for parts in dealt] for place in range(3)]
    assert [[list(each) for each in row] for row in students[:2]] == [[[0, 1], [2]], [[], [0, 1, 2, 3, 4]]]
    assert sum(len(each) for each in students[2]) == 1
    assert dealt[0].share == pytest.approx(2 * 90 / (3 * 90 + 5 * 9))


def examined(students: int, scaled: bool) -> Examined:
    sums = CalibrationSums(
        *(torch.rand(students, 15).double() for _ in range(3)), *torch.rand(2, students).double()
    )
    fidelity = FidelitySums(*torch.rand(3, students).double(), images=7, errors=2)
    losses = [(torch.rand(4), torch.rand(4) > 0.5) for _ in range(students)]
    return Examined(
        torch.rand(students).double().tolist(),
        torch.randint(0, 3, (students, 7)).int(),
        sums,
        sums if scaled else None,
        [0.1] * students if scaled else [],
        5 * scaled,
        fidelity if scaled else None,
        losses if scaled else [],
        losses if scaled else [],
        [0.1 + each for each in range(students)] if scaled else [],
    )


@pytest.mark.parametrize("scaled", [True, False])
def test_what_is_found_of_students_survives_the_way_between_processes(scaled: bool) -> None:
    before = examined(12, scaled)
    after, seconds = decode(encode((before, 0.1)))
    assert seconds == 0.1
    assert plain(after) == plain(before)
    assert after.predictions.dtype == torch.int32


def plain(value: Any) -> Any:
    """Return all of it as lists and mappings, which compare by value."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, Examined | CalibrationSums | FidelitySums):
        return {key: plain(each) for key, each in vars(value).items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


# Processes --------------------------------------------------------------------------------------------------

WORDS = ("--networks", "convnet2-w8", "--repeats", "3", "--epochs", "2", "--baselines", "random")


def commands(folder: str) -> None:
    """Evaluate a set, then be refused."""
    print(main(["evaluate", f"{folder}/shared.h5", *WORDS, "--json", f"{folder}/shared.json"]))
    print(main(["evaluate", f"{folder}/shared.h5", "--protocol", "krr-st", "--transfer", "digits"]))


@pytest.mark.slow
def test_torchruns_processes_evaluate_together(tmp_path: Path) -> None:
    for name in ("shared.h5", "alone.h5"):
        write_digits(tmp_path / name)
    first, second = together(2, commands, tmp_path)
    assert (first.out.split()[-1], second.out) == ("2", "0\n2\n"), (first, second)
    said = first.err + second.err
    assert said.count("dsdistill: ") == 1
    options: dict[str, Any] = {"networks": "convnet2-w8", "repeats": 3, "epochs": 2, "baselines": "random"}
    with threads(1):
        alone = dsdistill.evaluate(tmp_path / "alone.h5", **options, device="cpu")
    shared = json.loads((tmp_path / "shared.json").read_text())
    assert [row["values"] for row in shared["rows"]] == [row.values for row in alone.rows]
    assert len(set_results.results(tmp_path / "shared.h5")) == 2
