"""What reaches the terminal as it was written."""

from __future__ import annotations

import pytest

from dsdistill.cli import console


def test_the_names_of_data_sets_and_classes_become_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    for stream in (console.out, console.err):
        stream.print("folder:brain: cat, [b]dog", highlight=False, markup=False)
    assert capsys.readouterr() == ("folder:brain: cat, [b]dog\n",) * 2
