"""The progress bar: bars in terminals and notebooks, lines elsewhere, and the bar while pictures are read."""

from __future__ import annotations

import io
import sys
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

import dsdistill
from dsdistill.loggers import displays
from dsdistill.loggers.displays import Bar, Lines, NotebookBar
from dsdistill.loggers.progress import ProgressBar
from tests.conftest import THREADS, TINY

WHAT = "folder:pets: decoding train"


def terminal(**options: Any) -> Console:
    return Console(file=io.StringIO(), width=160, **{"force_terminal": True} | options)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def reading(console: Console, total: int) -> ProgressBar:
    show = ProgressBar(console=console)
    for done in (0, total // 2, total):
        show.on_read(WHAT, done, total)
        if isinstance(show._display, Bar):
            show._display._progress.refresh()
    return show


def test_a_long_list_of_pictures_has_a_bar_on_a_terminal() -> None:
    console = terminal()
    assert reading(console, ProgressBar.LONG_READING)._display is None
    show = reading(console, ProgressBar.LONG_READING + 2)
    assert WHAT in text(console)
    assert "101/202" in text(console)
    assert isinstance(show._display, Bar)
    assert not show._display._progress.tasks  # the bar goes when the list is read
    show.on_close()


def test_no_bar_without_a_terminal() -> None:
    console = terminal(force_terminal=False)
    reading(console, 1000).on_close()
    assert text(console) == ""


def test_the_bar_goes_when_reading_stops() -> None:
    show = ProgressBar(console=terminal())
    show.on_read(WHAT, 0, 1000)
    bar = show._display
    assert isinstance(bar, Bar)
    show.on_close()
    assert not bar._progress.tasks


def test_lines_give_an_eta_once_there_is_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lines, "EVERY", 0.0)
    console = terminal(force_terminal=False)
    show = ProgressBar(console=console)
    for done in (10, 20, 40):
        show.on_progress("students", done, 40)
    first, second, last = text(console).splitlines()
    assert first == "students 10/40"
    assert second == "students 20/40 ETA 0 min 00 s"
    assert last == "students 40/40"


HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"
"""What a terminal is sent to hide its cursor and to show it again."""


def test_sentences_alone_leave_the_cursor_alone() -> None:
    console = terminal()
    show = ProgressBar(console=console)
    show.on_notice("worth reading")
    show.on_close()
    assert HIDDEN not in text(console)
    assert text(console).count("\n") == 1


def test_a_bar_gives_the_cursor_back() -> None:
    console = terminal()
    show = ProgressBar(console=console)
    show.on_progress("students", 1, 2)
    assert text(console).count(HIDDEN) == 1
    show.on_close()
    assert text(console).rindex(SHOWN) > text(console).rindex(HIDDEN)


class Stage:
    """A start of which nothing is said."""

    def describe(self) -> list[str]:
        return []


def paced(show: ProgressBar, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a slow stage and then a quick one: an hour a step, a second a step."""
    now = 0.0
    monkeypatch.setattr(displays.time, "monotonic", lambda: now)
    for name, seconds in (("slow", 3600.0), ("quick", 1.0)):
        show.on_start(Stage())
        for done in (1, 2, 3):
            show.on_progress(name, done, 4)
            now += seconds


def test_lines_give_every_stage_a_pace_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    console = terminal(force_terminal=False)
    monkeypatch.setattr(Lines, "EVERY", 0.0)
    paced(ProgressBar(console=console), monkeypatch)
    assert text(console).splitlines()[3:] == [
        "quick 1/4",
        "quick 2/4 ETA 0 min 02 s",
        "quick 3/4 ETA 0 min 01 s",
    ]


def test_a_terminal_has_a_bar_for_every_stage() -> None:
    show = ProgressBar(console=terminal())
    for name in ("experts", "set"):
        show.on_start(Stage())
        show.on_progress(name, 1, 2)
    assert isinstance(show._display, Bar)
    first, second = show._display._progress.tasks
    show.on_close()
    assert (first.description, second.description) == ("experts", "set")
    assert first.stop_time is not None  # its clock stands


def test_a_run_is_described_and_details_come_when_asked_for(tmp_path: Any) -> None:
    for verbose in (False, True):
        console = terminal(force_terminal=False)
        bar = ProgressBar(verbose, console)
        output = tmp_path / f"{verbose}.h5"
        dsdistill.distill(output, **TINY, overrides=[THREADS], callbacks=[bar])
        lines = text(console).splitlines()
        assert "not compiled (too short" in next(line for line in lines if "3 iterations on" in line)
        assert lines[-1].startswith("dm digits IPC 1 3/3 loss ")
        assert any(line.startswith("decided: compute.") for line in lines) is verbose


class Cell:
    """What a notebook shows below a cell: IPython's display, as far as the bar uses it."""

    def __init__(self) -> None:
        self.drawn: list[str] = []
        self.module = ModuleType("IPython.display")
        self.module.HTML = str  # type: ignore[attr-defined]
        self.module.display = self.display  # type: ignore[attr-defined]

    def display(self, drawn: str, display_id: bool) -> Cell:
        assert display_id
        assert not self.drawn  # one bar, updated from then on
        self.drawn.append(drawn)
        return self

    def update(self, drawn: str) -> None:
        self.drawn.append(drawn)


def test_a_notebook_has_one_bar_that_is_redrawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = Cell()
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", cell.module)
    monkeypatch.setattr(NotebookBar, "EVERY", 0.0)
    show = ProgressBar(console=Console(force_jupyter=True))
    show.on_notice("worth <b>reading</b>")
    for done in (1, 2, 3):
        show.on_progress("<students>", done, 3)
    show.on_close()
    assert capsys.readouterr().out == "worth <b>reading</b>\n"
    assert len(cell.drawn) == 3
    assert '<progress value="3" max="3"' in cell.drawn[-1]
    assert "&lt;students&gt; 3/3" in cell.drawn[-1]


def test_a_notebook_gives_every_stage_a_pace_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell()
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", cell.module)
    paced(ProgressBar(console=Console(force_jupyter=True)), monkeypatch)
    assert "quick 3/4 ETA 0 min 01 s" in cell.drawn[-1]


def test_a_bar_serves_one_run_after_another() -> None:
    console = terminal(force_terminal=False)
    show = ProgressBar(console=console)
    for _ in range(2):
        show.on_progress("students", 1, 1)
        show.on_close()
    assert text(console).splitlines() == ["students 1/1"] * 2
    assert isinstance(displays.display_on(terminal()), Bar)
