"""Progress on stderr."""

from __future__ import annotations

import pytest

from dsdistill.cli import progress
from tests.helpers.cli import Captured


def test_lines_give_an_eta_once_there_is_a_pace(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.EvaluationProgress, "LINE_EVERY", 0.0)
    with progress.EvaluationProgress() as show:
        for done in (10, 20, 40):
            show.progress("students", done, 40)
    first, second, last = capsys.readouterr().err.splitlines()
    assert first == "students 10/40"
    assert second == "students 20/40 ETA 0 min 00 s"
    assert last == "students 40/40"
