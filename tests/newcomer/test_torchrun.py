"""torchrun trains experts and students in several processes, to the same numbers as one."""

from __future__ import annotations

import json
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
    options: dict[str, Any] = {"dataset": "digits", "network": "convnet2-w6", "device": "cpu"}
    trained: dict[str, Any] = {"recipe": "ncfm", "count": 2, "epochs": 1, "overrides": PLAIN[1::2]}
    experts = dsdistill.train_experts(tmp_path / "alone.h5", **trained, **options)
    train = ["experts", "--dataset", "digits", "--recipe", "ncfm", "--network", "convnet2-w6"]
    torchrun(tmp_path, *train, "--count", "2", "--epochs", "1", *PLAIN, "-o", "experts.h5")
    shared = dsdistill.ExpertFile.open(tmp_path / "experts.h5")
    assert all(torch.equal(shared.flat(each, 1), experts.flat(each, 1)) for each in range(2))

    dsdistill.distill(tmp_path / "set.h5", ipc=2, iterations=1, **options)
    torchrun(tmp_path, "evaluate", "set.h5", "--repeats", "2", "--epochs", "2", "--json", "report.json")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = dsdistill.evaluate(tmp_path / "set.h5", repeats=2, epochs=2, save=False, device="cpu")
    torch.set_num_threads(threads)
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["values"] for row in report["rows"]] == [row.values for row in alone.rows]
