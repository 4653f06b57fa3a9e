"""Progress on stderr: bars, lines with an ETA, and the bar while picture files are read."""

from __future__ import annotations

import pytest
from rich.console import Console

from dsdistill.cli import progress
from dsdistill.cli.progress import DistillationProgress, EvaluationProgress, ExpertsProgress, ProgressBar
from tests.helpers.cli import Captured


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "err", Console(stderr=True, force_terminal=True, width=120))


def decode(show: ProgressBar, total: int) -> None:
    with show:
        for done in (0, total // 2, total):
            show.decoding("folder:pets: decoding train", done, total)
            show._progress.refresh()


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("bar", [DistillationProgress, ExpertsProgress, EvaluationProgress])
def test_a_long_list_of_pictures_has_a_bar_on_a_terminal(
    bar: type[ProgressBar], capsys: pytest.CaptureFixture[str]
) -> None:
    decode(bar(), ProgressBar.LONG_DECODING)
    assert "decoding" not in capsys.readouterr().err
    show = bar()
    decode(show, ProgressBar.LONG_DECODING + 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "folder:pets: decoding train" in err
    assert "101/202" in err
    assert not show._progress.tasks  # the bar goes when the list is read


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    decode(EvaluationProgress(), 1000)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("terminal")
def test_the_bar_goes_when_reading_stops() -> None:
    with DistillationProgress() as show:
        show.decoding("folder:pets: decoding train", 0, 1000)
    assert not show._progress.tasks


def test_lines_give_an_eta_once_there_is_a_pace(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.EvaluationProgress, "LINE_EVERY", 0.0)
    with progress.EvaluationProgress() as show:
        for done in (10, 20, 40):
            show.progress("students", done, 40)
    first, second, last = capsys.readouterr().err.splitlines()
    assert first == "students 10/40"
    assert second == "students 20/40 ETA 0 min 00 s"
    assert last == "students 40/40"
