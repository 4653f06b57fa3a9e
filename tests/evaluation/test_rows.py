"""Rows and the names of sets."""

from __future__ import annotations

import dataclasses
import json

import pytest

from dsdistill.evaluation.measures import BINS, Calibration, Fidelity, Leak, Scores
from dsdistill.evaluation.rows import FULL, Row, canonical, labels_do_the_work, read_row


def row(name: str, values: list[float]) -> Row:
    return Row(name, "mlp", "dm", 10, 50.0, 1.25, values, 10, 10, 1.0)


@pytest.mark.parametrize(
    ("name", "today"),
    [
        ("whole", FULL),
        ("whole@bytes", "full@bytes"),
        ("full", FULL),
        ("random-plain", "random-plain"),
        ("random@2 MB", "random@2MB"),
        ("random@2KiB", "random@2kiB"),
    ],
)
def test_former_names_become_those_of_today(name: str, today: str) -> None:
    assert canonical(name) == row(name, [1.0]).set == today


def test_accuracy_has_a_deviation_where_there_are_several_students() -> None:
    assert row("random", [49.0, 51.0]).accuracy == "50.00 ± 1.25"
    assert row("random", [50.0]).accuracy == "50.00"


def test_a_stored_row_is_read_and_nothing_else() -> None:
    stored = dataclasses.asdict(row("whole", [50.0])) | {"date": "2026-01-02"}
    assert read_row(stored) == row("full", [50.0])
    for change in ({"mean": "x"}, {"values": []}, {"values": [1e9]}, {"std": float("nan")}, {"epochs": [1]}):
        assert read_row(stored | change) is None
    for other in ({"mean": 0.5}, {}, [], None, "row"):
        assert read_row(other) is None


@pytest.mark.parametrize(
    ("name", "soft", "regime"),
    [
        ("distilled", True, "SL"),
        ("distilled-plain", True, "SL"),
        ("distilled", False, "HL"),
        ("random", True, "HL"),
        ("distilled-hard", True, "HL"),
    ],
)
def test_rows_of_earlier_versions_get_the_regime_that_they_had(name: str, soft: bool, regime: str) -> None:
    stored = dataclasses.asdict(row(name, [50.0])) | {"soft_labels": soft}
    for key in ("regime", "calibration", "disagreement", "fidelity", "leak"):
        del stored[key]
    found = read_row(stored)
    assert found is not None
    assert found.regime == regime
    assert found.calibration is found.disagreement is found.fidelity is found.leak is None


def test_rows_from_before_sets_were_decoded_have_as_many_images_as_they_store() -> None:
    stored = dataclasses.asdict(row("distilled", [50.0]))
    del stored["decoded"]
    found = read_row(stored)
    assert found is not None
    assert found.decoded == found.images > 0


def test_measures_are_read_as_they_were_stored() -> None:
    scores, bins = Scores(12.5, 1.0, 0.5), [1.0] * BINS
    measured = dataclasses.replace(
        row("distilled", [50.0, 51.0]),
        regime="SL+KD",
        calibration=Calibration(scores, 1.5, scores, 20, [1] * BINS, bins, bins),
        disagreement=10.0,
        fidelity=Fidelity("a teacher", 90.0, 0.1, 5, None),
        leak=Leak(0.6, 3.0, 100),
    )
    stored = json.loads(json.dumps(dataclasses.asdict(measured)))
    assert read_row(stored) == measured
    short = stored["calibration"] | {"counts": [1]}
    for broken in ({"leak": {"auc": 2.0}}, {"regime": "KD"}, {"calibration": {}}, {"calibration": short}):
        assert read_row(stored | broken) is None


@pytest.mark.parametrize(("random", "flagged"), [(70.0, True), (69.0, True), (68.9, False), (90.0, True)])
def test_labels_do_the_work_where_random_images_come_within_a_point(random: float, flagged: bool) -> None:
    rows = [
        dataclasses.replace(row(name, [mean]), mean=mean)
        for name, mean in (("distilled", 70.0), ("random+labels", random), ("random", 70.0))
    ]
    found = labels_do_the_work(rows)
    assert bool(found) == flagged
    assert all(f"{random:.2f} % on random images and 70.00 % on the set" in each for each in found)
    assert not labels_do_the_work(rows[:1] + rows[2:])


@pytest.mark.parametrize("better", ["random+labels", "random@steps+labels"])
def test_labels_do_the_work_in_as_many_epochs_or_as_many_steps(better: str) -> None:
    means = {"distilled": 70.0, "random+labels": 60.0, "random@steps+labels": 60.0, better: 69.5}
    rows = [dataclasses.replace(row(name, [mean]), mean=mean) for name, mean in means.items()]
    (said,) = labels_do_the_work(rows)
    assert "69.50 % on random images" in said
