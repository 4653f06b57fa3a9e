"""Suites on a cluster: jobs of SLURM, through submitit, that share the folder of one suite.

Each job runs ``dsdistill bench … --shared``, so that cells are divided as jobs become free. One that is
pre-empted, or whose time is over, saves its states and is queued again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsdistill.errors import UserError, quoted
from dsdistill.text import shortened

_SAVING = 90.0
"""Seconds that a job which is stopped has to save its states: a suite gives its own commands 60."""

_LOOK = 0.5
"""Seconds between two looks whether the command has ended."""

_OF_EVERY_CLUSTER = frozenset(
    ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")
)
"""Options that submitit knows for every cluster; all others are SLURM's own."""


class SuiteJob:
    """One job: it works on a suite until nothing is left, or until the cluster stops it."""

    def __init__(self, words: Sequence[str]) -> None:
        """Prepare.

        Args:
            words: of the command, after ``dsdistill``.
        """
        self.words = list(words)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Run.

        Raises:
            RuntimeError: the command failed.
        """
        self._process = subprocess.Popen([sys.executable, "-m", "dsdistill", *self.words])
        # Not by wait(), whose lock the process would hold while a signal has `checkpoint` called.
        while (code := self._process.poll()) is None:
            time.sleep(_LOOK)
        if code:
            raise RuntimeError(f"dsdistill {' '.join(self.words)} ended with exit code {code}")

    def checkpoint(self) -> Any:
        """Save the states, as submitit asks for before a job is stopped, and have the job queued again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=_SAVING)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return DelayedSubmission(SuiteJob(self.words))


def submit(words: Sequence[str], folder: Path, options: str, jobs: int, cluster: str = "slurm") -> list[str]:
    """Queue jobs that work on one suite together.

    Args:
        words: of the command that each runs, after ``dsdistill``.
        folder: of the suite's results, where the jobs' logs go: on a disk that all machines share.
        options: of a job, such as "partition=gpu,timeout_min=240,gpus_per_node=1"; names are submitit's, or
            SLURM's own.
        jobs: how many.
        cluster: "slurm"; or "local", processes on this machine, to try it.

    Returns:
        their numbers.

    Raises:
        UserError: an option is none; submitit is not installed; or there is no SLURM here.
    """
    parameters = read_options(options)
    try:
        import submitit
    except ImportError as error:
        raise UserError('--slurm needs submitit: pip install "dsdistill[slurm]"') from error
    if cluster == "slurm" and shutil.which("srun") is None:
        raise UserError(
            "there is no SLURM here (srun is not on the PATH): run this where jobs are submitted, or start "
            "dsdistill bench with --shared on each machine"
        )
    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=cluster)
    queued: list[str] = []
    try:
        executor.update_parameters(name=f"dsdistill-{folder.name}", **parameters)
        for _ in range(jobs):
            queued.append(str(executor.submit(SuiteJob(words)).job_id))
    except Exception as error:  # whatever submitit or sbatch says of the options
        reason = shortened(" ".join(str(error).split()) or type(error).__name__, 200)
        ids = f" ({', '.join(queued)})" if queued else ""
        raise UserError(f"{len(queued)} of {jobs} jobs are queued{ids}: {reason}") from error
    return queued


def read_options(text: str) -> dict[str, Any]:
    """Read the options of a job as submitit takes them.

    >>> read_options("partition=gpu,timeout_min=240")
    {'slurm_partition': 'gpu', 'timeout_min': 240}

    Raises:
        UserError: one of them is no NAME=VALUE.
    """
    options: dict[str, Any] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, equals, value = (each.strip() for each in part.partition("="))
        if not (name and equals and value):
            raise UserError(f"--slurm takes options such as partition=gpu,mem_gb=32, not {quoted(part)}")
        known = name in _OF_EVERY_CLUSTER or name.startswith("slurm_")
        options[name if known else f"slurm_{name}"] = int(value) if value.isdecimal() else value
    return options
