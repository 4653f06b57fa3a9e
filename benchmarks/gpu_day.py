"""What a first hour on a GPU should measure, in blocks of at most eight minutes, each of them done once.

    python benchmarks/gpu_day.py --list             the blocks, their state and how long they take
    python benchmarks/gpu_day.py --minutes 13       as many blocks as fit into the time
    python benchmarks/gpu_day.py --only case-dm     one block

Results go to artifacts/gpu/, or to --out: a JSON file for each block, state.json, and gpu_day.md, a table of
them all. A block whose result is there is skipped, so the same command goes on where the last one stopped.
Full-length runs are interrupted when their time is over, and resumed by the next call. Fashion-MNIST is
looked for as everywhere: in $DSDISTILL_DATA or ~/.cache/dsdistill/data.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.gpu_blocks import (
    MOST_MINUTES,
    Block,
    Commands,
    Measured,
    gpu_blocks,
    measure,
    tiny_blocks,
)
from dsdistill.runtime import provenance

_GRACE = 60.0
"""Seconds that an interrupted command has to save its state."""


class Day:
    """The blocks, and what of them is done."""

    def __init__(self, blocks: Sequence[Block], out: Path, device: torch.device, command: str) -> None:
        self.blocks, self.out, self.device, self.command = list(blocks), out, device, command
        self._file = out / "state.json"
        self.states: dict[str, dict[str, Any]] = (
            json.loads(self._file.read_text()) if self._file.exists() else {}
        )

    def result(self, block: Block) -> Path:
        """Return the file of a block's result."""
        return self.out / f"{block.name}.json"

    def state(self, block: Block) -> str:
        """Return "done", "partial" or "to do", or which packages are lacking."""
        if self.result(block).exists():
            return "done"
        if block.lacking:
            return "lacks " + ", ".join(block.lacking)
        return "partial" if self.states.get(block.name) else "to do"

    def run(self, minutes: float, only: str = "") -> None:
        """Run what is left, until the time is over; one block in any case."""
        self.out.mkdir(parents=True, exist_ok=True)
        end = time.monotonic() + 60 * minutes
        chosen = [block for block in self.blocks if only in ("", block.name)]
        left = [block for block in chosen if self.state(block) in ("to do", "partial")]
        for number, block in enumerate(left):
            remaining = (end - time.monotonic()) / 60
            if number and remaining < min(block.minutes, MOST_MINUTES) / 2:
                continue  # a shorter one may fit
            if number and remaining <= 0:
                break
            print(f"{block.name}: {block.about}", flush=True)
            self._run(block, 60 * max(min(remaining, MOST_MINUTES), 0.5))
        self.write_table()

    def _run(self, block: Block, seconds: float) -> None:
        since = time.monotonic()
        if isinstance(block, Measured):
            rows = self._measured(block, seconds)
        else:
            assert isinstance(block, Commands)
            rows = self._commands(block, seconds)
        if rows is not None:
            spent = self.states.pop(block.name, {}).get("seconds", 0.0) + time.monotonic() - since
            record = {**self.circumstances(), "block": block.name, "about": block.about}
            _write(self.result(block), {**record, "seconds": round(spent, 1), "rows": rows})
        else:
            state = self.states.setdefault(block.name, {"seconds": 0.0, "rows": []})
            state["seconds"] += time.monotonic() - since
        _write(self._file, self.states)

    def _measured(self, block: Measured, seconds: float) -> list[dict[str, Any]] | None:
        """Measure a block in a process of its own; None if that takes too long."""
        if self.device.type == "cpu":
            return measure(block.variants(), self.device)
        command = [sys.executable, __file__, "--measure", block.name, "--device", str(self.device)]
        environment = {**os.environ, "DSDISTILL_BENCHMARK_DEVICE": str(self.device)}
        try:
            process = subprocess.run(
                command, env=environment, cwd=ROOT, timeout=seconds, stdout=subprocess.PIPE, text=True
            )
        except subprocess.TimeoutExpired:
            problem = f"took more than {seconds:.0f} s"
            return [{"variant": block.name, "error": problem}] if seconds >= 60 * MOST_MINUTES else None
        if process.returncode:
            return [{"variant": block.name, "error": f"exit code {process.returncode}"}]
        rows: list[dict[str, Any]] = json.loads(process.stdout.splitlines()[-1])
        return rows

    def _commands(self, block: Commands, seconds: float) -> list[dict[str, Any]] | None:
        """Run the commands that are left; None if the time was over before the last one's end."""
        end = time.monotonic() + seconds
        rows = self.states.setdefault(block.name, {"seconds": 0.0, "rows": []})["rows"]
        for command in block.commands[len(rows) :]:
            words = [word.format(out=self.out) for word in command]
            code, output = _interruptible(words, end - time.monotonic())
            if code is None:
                return None
            rows.append({"command": " ".join(["python", *words[1:]]), "exit": code, "said": output[-400:]})
            _write(self._file, self.states)
            if code:  # what follows would fail as well
                break
        return list(rows)

    def circumstances(self) -> dict[str, Any]:
        """Return what is to be known of every result."""
        return {
            "command": self.command,
            "date": datetime.date.today().isoformat(),
            "machine": provenance.machine_name(self.device),
            "driver": _driver(),
            "packages": provenance.package_versions(),
            "code": provenance.code_digest(),
        }

    def write_table(self) -> None:
        """Write gpu_day.md, a table of all results."""
        lines = ["# Measured on a GPU", ""]
        for name, value in self.circumstances().items():
            if name in ("machine", "driver", "date", "command"):
                lines.append(f"- {name}: {value}")
        lines += [f"- torch: {torch.__version__}", "", "| block | what | result |", "|---|---|---|"]
        for block in self.blocks:
            if self.state(block) == "done":
                for row in json.loads(self.result(block).read_text())["rows"]:
                    lines.append(f"| {block.name} | {row.get('variant') or row['command']} | {_said(row)} |")
            else:
                lines.append(f"| {block.name} | {block.about} | {self.state(block)} |")
        (self.out / "gpu_day.md").write_text("\n".join(lines) + "\n")


def _said(row: dict[str, Any]) -> str:
    """Say in a few words what came out."""
    if "error" in row:
        return str(row["error"])
    if "exit" in row:
        last = row["said"].strip().splitlines()[-1:] or [""]
        return f"exit code {row['exit']}: {last[0]}"
    times = f", {row['times_faster']:.2f}x" if "times_faster" in row else ""
    return f"{1000 * row['seconds']:.2f} ms{times}, {row['peak_bytes'] / 1e6:.0f} MB"


def _interruptible(words: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Run a command; interrupt it when the time is over, so that it saves its state: its code is None."""
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=max(1.0, seconds))
        return process.returncode, output
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return None, ""


def _driver() -> str:
    """Return the version of the GPU's driver; empty without one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _write(file: Path, content: Any) -> None:
    """Write JSON; a stop in between leaves the earlier file."""
    beside = file.with_suffix(".part")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    beside.replace(file)


def _list(day: Day) -> None:
    for block in day.blocks:
        needs = f" (needs {', '.join(block.needs)})" if block.needs else ""
        print(f"{block.name:16s} {day.state(block):8s} {block.minutes:3.0f} min  {block.about}{needs}")
    print("no block needs kornia, which computes ZCA alone")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=13.0, help="that this call may take, about")
    parser.add_argument("--list", action="store_true", help="say what there is to do")
    parser.add_argument("--only", default="", help="the name of a block")
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "gpu")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="blocks of no time, for the test on a CPU")
    parser.add_argument("--measure", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    blocks = tiny_blocks() if arguments.tiny else gpu_blocks()
    names = [block.name for block in blocks]
    if arguments.only and arguments.only not in names:
        print(f"there is no block {arguments.only!r}: --list names them", file=sys.stderr)
        return 2
    device = torch.device(arguments.device)
    if (
        not arguments.list
        and not arguments.tiny
        and not (device.type == "cuda" and torch.cuda.is_available())
    ):
        print("gpu_day.py measures a CUDA device, and torch finds none here", file=sys.stderr)
        return 2
    if arguments.measure:
        block = blocks[names.index(arguments.measure)]
        assert isinstance(block, Measured)
        print(json.dumps(measure(block.variants(), device)))
        return 0
    command = " ".join(["python", "benchmarks/gpu_day.py", *(sys.argv[1:] if words is None else words)])
    day = Day(blocks, arguments.out.absolute(), device, command)
    if arguments.list:
        _list(day)
    else:
        day.run(arguments.minutes, arguments.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
