"""A result says which labels students learned from, and what these are worth without the images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dsdistill


@pytest.fixture
def files(finished: Path, pool: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A set and networks trained on the same data."""
    mine = tmp_path / "mine.h5"
    mine.write_bytes(finished.read_bytes())
    return mine, pool


def test_a_teacher_brings_the_controls_of_its_regime(files: tuple[Path, Path], tmp_path: Path) -> None:
    mine, teacher = files
    quick = {"networks": ["convnet2-w8"], "epochs": 2, "repeats": 2}
    plain = dsdistill.evaluate(mine, **quick)  # type: ignore[arg-type]
    assert [(row.set, row.regime) for row in plain.rows] == [("distilled", "HL"), ("random", "HL")]

    taught = dsdistill.evaluate(
        mine,
        labels="teacher",
        teacher=teacher,
        json=tmp_path / "taught.json",
        **quick,  # type: ignore[arg-type]
    )
    regimes = {row.set: row.regime for row in taught.rows}
    assert regimes["distilled"] == regimes["random+labels"] == regimes["noise+labels"] == "SL+KD"
    assert regimes["random"] == regimes["distilled-hard"] == "HL"
    hard = {row.set: row.values for row in plain.rows}
    controls = {row.set: row.values for row in taught.rows}
    assert controls["distilled-hard"] == hard["distilled"]  # the same images, labels and students
    assert controls["random"] == hard["random"]

    written = json.loads((tmp_path / "taught.json").read_text())
    assert written["regime"] == "SL+KD"
    assert written["rows"][0]["calibration"]["scores"]["ece"] >= 0
    assert len(written["rows"][0]["calibration"]["counts"]) == 15
    assert 0 <= written["rows"][0]["fidelity"]["agreement"] <= 100
    assert isinstance(written["flags"], list)


def test_a_teacher_that_is_missing_is_asked_for(files: tuple[Path, Path]) -> None:
    with pytest.raises(dsdistill.UserError, match="name one by --teacher FILE"):
        dsdistill.evaluate(files[0], protocol="rded")


def test_students_may_be_of_the_network_of_their_teacher(files: tuple[Path, Path]) -> None:
    mine, teacher = files
    network = dsdistill.ExpertFile.open(teacher).metadata.network
    report = dsdistill.evaluate(
        mine,
        labels="teacher",
        teacher=teacher,
        networks=[network],
        baselines=["random+labels", "teacher"],
        epochs=2,
        repeats=1,
    )
    assert [row.set for row in report.rows] == ["distilled", "random+labels", "teacher"]
    assert {row.network for row in report.rows} == {network}
