"""A day on a GPU goes on where the last call stopped; here with blocks of no time on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_blocks, gpu_day, variants
from benchmarks.gpu_blocks import Commands, Measured

TINY = ["--device", "cpu", "--tiny"]


def day(out: Path, *words: str) -> int:
    return gpu_day.main([*TINY, "--out", str(out), *words])


def test_a_second_call_goes_on_where_the_first_one_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert day(tmp_path, "--minutes", "0") == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["gpu_day.md", "state.json", "toys.json"]
    first = (tmp_path / "toys.json").read_bytes()
    assert "| commands | a line | to do |" in (tmp_path / "gpu_day.md").read_text()
    assert day(tmp_path, "--minutes", "5") == 0
    assert (tmp_path / "toys.json").read_bytes() == first
    record = json.loads((tmp_path / "commands.json").read_text())
    assert [row["exit"] for row in record["rows"]] == [0, 0]
    assert [row["said"].strip() for row in record["rows"]] == [str(tmp_path)] * 2
    table = (tmp_path / "gpu_day.md").read_text()
    assert f"torch: {torch.__version__}" in table
    assert "| elsewhere | nothing | lacks no_such_package |" in table
    capsys.readouterr()
    assert day(tmp_path, "--minutes", "5") == 0
    assert capsys.readouterr().out == ""  # nothing is left
    assert day(tmp_path, "--list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in listed[:2]] == [["toys", "done"], ["commands", "done"]]
    assert "kornia" in listed[-1]


def test_a_variant_that_fails_leaves_the_others(tmp_path: Path) -> None:
    day(tmp_path, "--only", "toys")
    rows = json.loads((tmp_path / "toys.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["4", "8", "none"]
    assert rows[0]["times_faster"] == 1
    assert rows[1]["seconds"] > 0
    assert rows[2]["error"] == "RuntimeError: there is none"
    assert not (tmp_path / "commands.json").exists()


def test_a_command_whose_time_is_over_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int | None] = [0, None, 0]
    monkeypatch.setattr(gpu_day, "_interruptible", lambda words, seconds: (codes.pop(0), "said"))
    day(tmp_path, "--only", "commands")
    assert codes == [0]
    assert not (tmp_path / "commands.json").exists()
    assert "| commands | a line | partial |" in (tmp_path / "gpu_day.md").read_text()
    day(tmp_path, "--only", "commands")
    assert codes == []
    assert len(json.loads((tmp_path / "commands.json").read_text())["rows"]) == 2


def test_without_a_gpu_one_sentence_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_day.main(["--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "gpu_day.py measures a CUDA device, and torch finds none here\n"
    assert day(tmp_path / "out", "--only", "no-such-block") == 2
    assert capsys.readouterr().err == "there is no block 'no-such-block': --list names them\n"
    assert not (tmp_path / "out").exists()


def test_the_blocks_of_a_gpu_can_be_prepared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    blocks = gpu_blocks.gpu_blocks()
    assert len({block.name for block in blocks}) == len(blocks)
    for block in blocks:
        if isinstance(block, Measured):
            assert block.variants()
        else:
            assert isinstance(block, Commands)
            assert block.commands
    assert {f"ours_{what}" for what in gpu_blocks.CASES} <= set(dir(variants))
    assert gpu_day.main(["--list", "--out", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(blocks) + 1
