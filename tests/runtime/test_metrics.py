"""The log of a run is only a log: damage costs the damaged entries, not the run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dsdistill.errors import UserError
from dsdistill.runtime import metrics

WHOLE = [{"iteration": at, "loss": at / 7} for at in range(1, 5)]
LINES = [json.dumps(entry).encode() for entry in WHOLE]
DAMAGE = {
    "cut": b'{"iteration": 2, "lo',
    "no text": b"\xff\xfe\x00\x80",
    "zeros": bytes(200_000),
    "no object": b'[1, 2, "iteration"]',
    "a number": b"17",
    "no iteration": b'{"loss": 2.0}',
    "iteration is text": b'{"iteration": "2"}',
    "iteration is true": b'{"iteration": true}',
    "deep": b"[" * 60_000,
    "a long number": b'{"iteration": ' + b"9" * 5000 + b"}",
    "blank": b"",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("at", [0, 2, 4])
def test_damaged_lines_are_left_out(tmp_path: Path, damage: str, at: int) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([*LINES[:at], DAMAGE[damage], *LINES[at:]]))
    assert list(metrics.read(path)) == WHOLE
    metrics.trim(path, 3)
    assert path.read_bytes() == b"".join(line + b"\n" for line in LINES[:3])


def test_where_there_is_no_log_nothing_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("none", "pipe", "."):
        assert list(metrics.read(tmp_path / name)) == []
    metrics.trim(tmp_path / "none", 3)
    assert (tmp_path / "none").read_bytes() == b""


def test_entries_are_added_and_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for entry in WHOLE[:2]:
        with metrics.MetricsLog(path) as log:
            log.add(entry)
    with metrics.MetricsLog(path) as log:
        log.add(WHOLE[2])
        assert list(metrics.read(path)) == WHOLE[:3]


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "protected").touch()
    (tmp_path / "protected").chmod(0o444)
    for name, said in (("protected", "write-protected"), ("none/a", "does not exist"), (".", "a folder")):
        with pytest.raises(UserError, match=said):
            metrics.MetricsLog(tmp_path / name)


def test_a_full_disk_is_found_at_the_entry(tmp_path: Path) -> None:
    with metrics.MetricsLog(tmp_path / "metrics.jsonl") as log:
        log._file.close()
        log._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 - the log closes it
        with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: No space left on device"):
            log.add(WHOLE[0])
