"""What the console shows while picture files are read."""

from __future__ import annotations

import pytest
from rich.console import Console

from dsdistill.cli import console

PROGRESS = [console.DistillationProgress, console.ExpertsProgress, console.EvaluationProgress]


def decode(show: console.ProgressBar, total: int) -> None:
    with show:
        for done in (0, total // 2, total):
            show.decoding("folder:pets: decoding train", done, total)
            show._progress.refresh()


@pytest.mark.parametrize("progress", PROGRESS)
def test_a_long_list_of_pictures_has_a_bar_on_a_terminal(
    progress: type[console.ProgressBar],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(console, "err", Console(stderr=True, force_terminal=True, width=120))
    decode(progress(), console.ProgressBar.LONG_DECODING)
    assert "decoding" not in capsys.readouterr().err
    show = progress()
    decode(show, console.ProgressBar.LONG_DECODING + 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "folder:pets: decoding train" in err
    assert "101/202" in err
    assert not show._progress.tasks  # the bar goes when the list is read


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    decode(console.EvaluationProgress(), 1000)
    assert capsys.readouterr() == ("", "")


def test_the_bar_goes_when_reading_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "err", Console(stderr=True, force_terminal=True, width=120))
    with console.DistillationProgress() as show:
        show.decoding("folder:pets: decoding train", 0, 1000)
    assert not show._progress.tasks
