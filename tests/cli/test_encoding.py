"""The command encode."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdistill.storage.set_description import describe
from dsdistill.synthetic.coded import Coding
from tests.helpers.cli import refused, succeed


def test_the_encode_command(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "small.h5"
    out, err = succeed(capsys, "encode", finished, "-o", output, "--bits", 2, "--groups", 8)
    assert "2 bits in patches of 4×4, 8 scales" in out
    assert err == ""
    assert describe(output).coded == Coding(2, 4, 8)
    out, _ = succeed(capsys, "info", output)
    assert "10 of 1x8x8, 1 a class stored as 2 bits in patches of 4×4, 8 scales" in " ".join(out.split())

    words = "encode", finished, "-o", tmp_path / "no.h5"
    assert "--bits takes a whole number from 0, or auto, not '2.5'" in refused(capsys, *words, "--bits", 2.5)
    assert "--bits takes a whole number" in refused(capsys, *words, "--bits", "9" * 5000)
    assert "'bits' is 9" in refused(capsys, *words, "--bits", 9)
    assert "a budget is a number of bytes" in refused(capsys, *words, "--budget", "little")
    assert "--overwrite" in refused(capsys, "encode", finished, "-o", output)
    assert not (tmp_path / "no.h5").exists()
