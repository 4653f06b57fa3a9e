"""torchrun shares a distillation among several processes, to the same set as one makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill

PLAIN = ["--set", "compute.threads=1", "--set", "compute.compile=false"]


def torchrun(folder: Path, *words: str) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "dsdistill", *words, "--quiet"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_do_the_work_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(dsdistill.__file__).parents[1]))
    options: dict[str, Any] = {"dataset": "digits", "network": "convnet2-w6", "ipc": 1, "iterations": 2}
    dsdistill.distill(tmp_path / "alone.h5", **options, device="cpu", overrides=PLAIN[1::2])
    words = ["distill", "--dataset", "digits", "--network", "convnet2-w6", "--ipc", "1", "--iterations", "2"]
    torchrun(tmp_path, *words, "--device", "cpu", *PLAIN, "-o", "set.h5")
    alone, shared = (dsdistill.load(tmp_path / name, space="unit") for name in ("alone.h5", "set.h5"))
    assert torch.equal(shared.images, alone.images)
