"""The report of an evaluation: its table, and its rows in a set's file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from dsdistill.errors import UserError
from dsdistill.evaluation.measures import BINS, Calibration, Fidelity, Leak, Scores
from dsdistill.evaluation.report import Report
from dsdistill.evaluation.rows import Row
from dsdistill.storage import set_file, set_results
from tests.helpers.writers import uninstall


def row(name: str, mean: float = 50.0, **changes: Any) -> Row:
    facts = {"epochs": 30, "std": 0.0, "values": [mean], "images": 20, "decoded": 20, "seconds": 1.0}
    return Row(name, "mlp", "dm", mean=mean, **(facts | changes))


@pytest.fixture
def report() -> Report:
    return Report(
        rows=[row("distilled"), row("random", 40.0)],
        file="digits.h5",
        dataset="digits",
        protocol="dm",
        epochs=30,
        repeats=1,
        lr=0.01,
        seed=0,
        precision="fp32",
        device="cpu",
        machine="a CPU, 2 threads",
        date="2026-01-02T03:04:05+00:00",
        packages={"torch": "2.6"},
        cost={"image_bytes": 1000.0, "real_images": 30.0},
    )


def column(report: Report, number: int) -> list[Any]:
    return list(report.table().columns[number].cells)


# The table --------------------------------------------------------------------------------------------------


def test_the_table_names_sets_images_and_accuracies(report: Report) -> None:
    decoded = dataclasses.replace(report, rows=[row("distilled", decoded=80), row("full", epochs=12)])
    assert column(decoded, 1) == ["distilled", "full, 12 epochs"]
    assert column(decoded, 3) == ["20 → 80 decoded", "20"]
    assert column(decoded, 4) == ["50.00", "50.00"]  # one student: no ±
    assert "digits" in str(report.table().title)


def test_a_regime_in_which_labels_do_the_work_is_flagged(report: Report) -> None:
    rows = [row("distilled", regime="SL"), row("random+labels", 49.5, regime="SL")]
    flagged = dataclasses.replace(report, rows=rows)
    assert column(flagged, 2) == ["SL", "SL"]
    (sentence,) = flagged.to_dict()["flags"]
    assert sentence.startswith("labels do the work: ")
    assert sentence in str(flagged.table().caption)
    assert report.to_dict()["flags"] == []


def test_the_caption_says_what_was_measured(report: Report) -> None:
    scores, bins = Scores(12.5, 1.0, 0.5), [0.0] * BINS
    measured = row(
        "distilled",
        calibration=Calibration(scores, 1.5, Scores(3.0, 0.9, 0.4), 20, [0] * BINS, bins, bins),
        disagreement=10.0,
        fidelity=Fidelity("a teacher", 90.0, 0.1, 5, 40.0),
        leak=Leak(0.6, 3.0, 100),
    )
    caption = str(dataclasses.replace(report, rows=[measured]).table().caption)
    assert caption.split("\n")[-1] == (
        "ECE 12.5 %, NLL 1.00 (ECE 3.0 %, NLL 0.90 at T = 1.50); students disagree on 10.0 %; agrees with "
        "the teacher on 90.0 % (40.0 % of its errors), KL 0.10; leak: AUC 0.600, +3.0 points on training "
        "images"
    )


def test_the_caption_shows_cost_and_scores(report: Report) -> None:
    cost, scores = str(dataclasses.replace(report, distil_machine="a GPU").table().caption).split("\n")
    assert cost == "images 1 KB, as many bytes as 30 real images, made on a GPU"
    assert scores == "IOR +10.00 points"
    bare = dataclasses.replace(report, rows=report.rows[:1], cost={})
    assert bare.table().caption is None
    assert bare.to_dict()["scores"] == {}


# Results in a file ------------------------------------------------------------------------------------------


def test_equal_results_are_stored_once(digits_file: Path, report: Report) -> None:
    later = dataclasses.replace(report, date="2027-01-02T03:04:05+00:00")
    for each, seconds in ((report, 1.0), (later, 2.0)):
        each.append_to(digits_file, row("random", seconds=seconds))
    dataclasses.replace(report, seed=1).append_to(digits_file, row("random"))
    assert [(result["seed"], result["seconds"]) for result in set_results.results(digits_file)] == [
        (0, 1),
        (1, 1),
    ]
    assert "scores" not in set_results.results(digits_file)[0]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, 1),
        ({"date": "2027-01-02T03:04:05+00:00"}, 1),
        ({"machine": "a CPU, 4 threads"}, 1),
        ({"machine": "another CPU, 2 threads"}, 0),
        ({"conditions": "changed"}, 0),
        ({"precision": "bf16"}, 0),
    ],
)
def test_earlier_rows_are_those_of_an_otherwise_identical_evaluation(
    digits_file: Path, report: Report, change: dict[str, str], found: int
) -> None:
    report.append_to(digits_file, row("random"))
    earlier = dataclasses.replace(report, **change).earlier_rows(digits_file)  # type: ignore[arg-type]
    assert earlier == [row("random")] * found


def test_results_under_the_former_name_of_full_are_read_and_not_stored_again(
    digits_file: Path, report: Report
) -> None:
    report.append_to(digits_file, row("full"))
    (today,) = set_results.results(digits_file)
    former = digits_file.with_name("former.h5")
    set_file.write(former, set_file.read(digits_file))
    set_results.append_result(former, today | {"set": "whole"})
    assert report.earlier_rows(former) == [row("full")]
    report.append_to(former, row("full"))
    assert [result["set"] for result in set_results.results(former)] == ["whole"]


def test_the_report_is_written_as_json(tmp_path: Path, report: Report) -> None:
    report.write_json(tmp_path / "report.json")
    table = json.loads((tmp_path / "report.json").read_text())
    assert table == json.loads(json.dumps(report.to_dict()))
    assert next(iter(table)) == "rows"
    assert table["scores"] == {"networks": {"mlp": {"ior": pytest.approx(0.1)}}}


# In a notebook ----------------------------------------------------------------------------------------------


def test_a_notebook_shows_the_table(report: Report) -> None:
    html = dataclasses.replace(report, dataset="<b>digits")._repr_html_()
    assert "Test accuracy on &lt;b&gt;digits, protocol dm" in html
    assert "<td>mlp</td><td>random</td><td>HL</td><td>20</td><td>40.00</td><td>1.0</td>" in html
    assert html.count("<tr>") == 3
    assert "as many bytes as 30 real images<br>" in html


def test_a_frame_has_a_line_for_each_row(report: Report) -> None:
    pytest.importorskip("pandas")
    frame = report.to_frame()
    assert list(frame["set"]) == ["distilled", "random"]
    assert list(frame["mean"]) == [50.0, 40.0]
    assert list(frame["values"]) == [[50.0], [40.0]]
    assert set(frame["dataset"]) == {"digits"}
    empty = dataclasses.replace(report, rows=[]).to_frame()
    assert list(empty.columns) == list(frame.columns)


def test_without_pandas_a_sentence_says_what_to_install(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninstall(monkeypatch, "pandas")
    with pytest.raises(UserError, match='needs pandas, which is not installed: pip install "dsdistill'):
        report.to_frame()
