"""Kill a short run before one of its file operations, each in turn, and run it again.

A program: ``python -m tests.helpers.kills WHAT FOLDER FIRST STEP`` prints a JSON list of what happened at the
operations FIRST, FIRST + STEP, …. It forks, so that the packages are imported once, before any thread runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.faults import Fault, kill


def distill(folder: Path, resume: bool) -> None:
    import dsdistill

    options: dict[str, Any] = {"dataset": "digits", "ipc": 1, "network": "convnet2-w8", "iterations": 3}
    overrides = ["compute.threads=1", "checkpoint.iterations=1", "checkpoint.snapshots=3"]
    dsdistill.distill(folder / "out.h5", **options, device="cpu", overrides=overrides, resume=resume)


def experts(folder: Path, resume: bool) -> None:
    import dsdistill

    options: dict[str, Any] = {"dataset": "digits", "recipe": "mtt", "network": "convnet2-w4", "epochs": 1}
    overrides = ["compute.threads=1", "compute.compile=false", "batch_size=700", "drop_last=true"]
    dsdistill.train_experts(
        folder / "out.h5", **options, count=2, device="cpu", overrides=overrides, resume=resume
    )


RUNS: dict[str, Callable[[Path, bool], None]] = {"distill": distill, "experts": experts}
CONFIG = {"distill": "out.run/config.toml", "experts": "out.h5.parts/config.toml"}


def forked(work: Callable[[], None]) -> int:
    """Do work in a child process; return its exit code, negative for a signal."""
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(what: str, folder: Path, at: int) -> int:
    def work() -> None:
        patch = pytest.MonkeyPatch()
        Fault(at, kill).install(patch)
        RUNS[what](folder, False)

    return forked(work)


def main(what: str, parent: Path, first: int, step: int) -> list[dict[str, Any]]:
    import torch

    torch.set_num_threads(1)  # no thread runs when a child is forked
    (parent / "whole").mkdir()
    RUNS[what](parent / "whole", False)  # and the children need not import anything
    found = []
    for at in range(first, 10_000, step):
        folder = parent / str(at)
        folder.mkdir()
        first_code = killed(what, folder, at)
        finished = (folder / "out.h5").exists()
        resume = finished or (folder / CONFIG[what]).exists() or at % 2 == 0
        again = forked(lambda folder=folder, resume=resume: RUNS[what](folder, resume))  # type: ignore[misc]
        left = sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))
        found.append({"at": at, "killed": first_code, "again": again, "left": left})
        if first_code == 0:
            break
    return found


def outcomes(what: str, folder: Path, first: int, step: int) -> list[dict[str, Any]]:
    """Run `main` in a process of its own."""
    command = [sys.executable, "-m", "tests.helpers.kills", what, str(folder), str(first), str(step)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    result: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:5]))))
