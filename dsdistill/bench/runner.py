"""Running cells, each command in a process of its own: one that fails or crashes leaves the others alone."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsdistill import files
from dsdistill.bench import cell_files
from dsdistill.bench.cells import Cell
from dsdistill.bench.expert_set import Environment, ExpertSet
from dsdistill.bench.results import CellResult
from dsdistill.bench.sharing import Claimed, locks, working
from dsdistill.errors import UserError
from dsdistill.runtime.signals import deferred_signals

_LOOK = 5.0
"""Seconds between two looks at what other processes have claimed, while there is nothing else to do."""

MEMORY_EACH = 3 * 10**9
"""Bytes that a cell needs, by our estimate, when several run at once."""

Launch = Callable[[Sequence[str], Path, int], "subprocess.Popen[bytes]"]
"""Starts ``dsdistill``: with some words, a file for its output, and so many threads (0: its own choice)."""


@dataclass(frozen=True)
class Event:
    """A command began, or a job finished or failed."""

    name: str
    stage: str
    """"distilling", "labelling", "encoding", "evaluating", "training experts"; "finished", "failed"."""
    done: int
    """Cells that are finished or failed."""
    total: int
    result: CellResult | None = None
    failure: str = ""
    running: tuple[str, ...] = ()


@dataclass
class _Job:
    """A running cell, or its experts: which commands are left follows from the files that are there."""

    name: str
    steps: Iterator[tuple[str, list[str]]]
    log: Path
    cell: Cell | None = None
    experts: ExpertSet | None = None
    process: subprocess.Popen[bytes] | None = None
    stage: str = ""
    began: float = 0.0


def launch(words: Sequence[str], log: Path, threads: int) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own: Ctrl-C reaches it through this process only.

    Raises:
        UserError: the log cannot be written, or the process cannot be started.
    """
    variables = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    files.check_target(log)
    try:
        with log.open("ab", buffering=0) as file:
            file.write(f"\n$ dsdistill {shlex.join(words)}\n".encode())
            return subprocess.Popen(
                [sys.executable, "-m", "dsdistill", *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=tuple(locks),
                env=variables,
            )
    except OSError as error:
        raise UserError(f"cannot run a command that logs to {log}: {files.reason(error)}") from error


def workers_for(
    requested: str, cells: int, *, cores: int, memory: int | None, timed: bool, on_gpu: bool
) -> tuple[int, int]:
    """Decide how many cells run side by side, and with how many threads each.

    Args:
        requested: a number, or "auto": as many as there are cores, and memory at 3 GB each; but one where
            cells have a budget of seconds, which neighbours would slow down unequally, and one on a GPU.
        cells: how many are to run.
        cores: threads that torch would take.
        memory: bytes free, or None where that is not known.

    Returns:
        workers, and threads each (0: their own choice).

    Raises:
        UserError: ``requested`` is neither.
    """
    if requested == "auto":
        fit = cores if memory is None else min(cores, memory // MEMORY_EACH)
        workers = max(1, min(fit, cells)) if not (timed or on_gpu) else 1
    elif requested.isdecimal() and int(requested) >= 1:
        workers = min(int(requested), max(1, cells))
    else:
        raise UserError(f"--workers takes auto or a number from 1, not {requested!r}")
    return workers, max(1, cores // workers) if workers > 1 else 0


def run(
    suite: str,
    cells: Sequence[Cell],
    results: Path,
    environment: Environment,
    workers: int,
    notify: Callable[[Event], None],
    launch: Launch = launch,
    shared_by: Sequence[Cell] | None = None,
) -> dict[str, str]:
    """Distil and evaluate cells. Finished ones are left alone; others go on where they were stopped.

    Where the folder is shared, cells that others work on are left to them, and taken over if they end
    unfinished.

    Args:
        suite: the suite's name, for the results.
        results: the folder.
        workers: cells side by side.
        notify: called with everything that happens.
        shared_by: all cells of the suite, where other processes may work in the folder; None keeps them out.

    Returns:
        why each cell that failed did, by name; failures of experts are those of the cells they are for.

    Raises:
        UserError: a cell was begun with other settings, or another process works here.
        Interrupted: on SIGINT, SIGTERM, SIGHUP or SIGUSR1, after the running commands have saved their
            states.
    """
    files.make_folder(results, parents=True)
    with working(results, shared_by or cells, shared=shared_by is not None) as claimed:
        if claimed.alone:
            files.sweep(results)
        cell_files.write_settings([*cells, *(each for cell in cells for each in cell.needs)], results)
        work = _Work(suite, cells, results, environment, notify, launch, claimed)
        with deferred_signals() as received:
            try:
                while work.left or work.running:
                    if received:
                        raise received[0]
                    if not (len(work.running) < workers and work.start_one()):
                        time.sleep(0.05)
                    for job in list(work.running):
                        work.advance(job)
                    work.give_up_lost()
            finally:
                _stop(work.running, results)
        return work.failed


class _Work:
    """The cells that are left and the running jobs.

    Attributes:
        left: cells not begun. running: jobs. failed: the reason, by name of the cell.
    """

    def __init__(
        self,
        suite: str,
        cells: Sequence[Cell],
        results: Path,
        environment: Environment,
        notify: Callable[[Event], None],
        launch: Launch,
        claimed: Claimed,
    ) -> None:
        self.left = [cell for cell in cells if not cell_files.read_result(cell, results)]
        self.running: list[_Job] = []
        self.failed: dict[str, str] = {}
        self._total, self._finished = len(cells), len(cells) - len(self.left)
        self._suite, self._results, self._environment = suite, results, environment
        self._notify, self._launch = notify, launch
        self._claimed = claimed
        self._looked = -math.inf  # when others' claims were last looked at

    def start_one(self) -> bool:
        """Start a job that can start now; False where there is none."""
        if not self._claimed.alone and time.monotonic() - self._looked < _LOOK:
            return False
        for job in _ready(self.left, self.running, self._results, self._environment):
            if not self._claimed.take(job.name):
                continue
            if self._finished_elsewhere(job):
                self._claimed.free(job.name)
                return True
            self.running.append(job)
            if job.cell:
                self.left.remove(job.cell)
                cell_files.write_failure(job.cell, self._results, "")
            return True
        self._looked = time.monotonic()
        return False

    def _finished_elsewhere(self, job: _Job) -> bool:
        """Whether another process has finished a job since it was looked for; a cell leaves the list then."""
        if self._claimed.alone:
            return False
        if job.experts:
            return job.experts.file(self._results).exists()
        assert job.cell is not None
        if not (result := cell_files.read_result(job.cell, self._results)):
            return False
        self.left.remove(job.cell)
        self._finished += 1
        self._report(job.name, "finished", result)
        return True

    def give_up_lost(self) -> None:
        """Stop the jobs that other processes have taken over, as this one did not answer for long."""
        lost = self._claimed.lost()
        for job in [each for each in self.running if each.name in lost]:
            _stop([job], self._results)
            self.running.remove(job)
            if job.cell:
                self.left.append(job.cell)

    def advance(self, job: _Job) -> None:
        """Start a job's next command when the one before has ended; after the last, finish it."""
        if job.process is not None and job.process.poll() is None:
            return
        _account(job, self._results)
        reason = _failure(job)
        try:
            if not reason and (step := next(job.steps, None)):
                job.stage, words = step
                job.began = time.monotonic()
                job.process = self._launch(words, job.log, self._environment.threads)
                self._report(job.name, job.stage)
                return
            self.running.remove(job)
            if not reason and job.cell:
                commands = job.cell.commands(self._results, self._environment)
                result = cell_files.write_result(self._suite, job.cell, self._results, commands)
                self._finished += 1
                self._report(job.name, "finished", result)
        except UserError as error:
            reason = str(error)
        if reason:
            self._fail(job, reason)
        self._claimed.free(job.name)

    def _fail(self, job: _Job, reason: str) -> None:
        """Give up a cell, or those that wait for experts."""
        if job in self.running:
            self.running.remove(job)
        for cell in [job.cell] if job.cell else [each for each in self.left if job.experts in each.needs]:
            if cell in self.left:
                self.left.remove(cell)
            self.failed[cell.name] = reason
            cell_files.write_failure(cell, self._results, reason)
            self._report(cell.name, "failed", failure=reason)

    def _report(self, name: str, stage: str, result: CellResult | None = None, failure: str = "") -> None:
        names = tuple(job.name for job in self.running)
        done = self._finished + len(self.failed)
        self._notify(Event(name, stage, done, self._total, result, failure, names))


def _ready(
    left: Sequence[Cell], running: Sequence[_Job], results: Path, environment: Environment
) -> Iterator[_Job]:
    """Yield the jobs that can start now: the next cells, or the experts that one waits for."""
    training = [job.experts for job in running if job.experts]
    for cell in left:
        for needed in cell.needs:
            if needed.file(results).exists():  # it appears when the last of them is trained
                continue
            if needed not in training:
                files.make_folder(needed.file(results).parent, parents=True)
                steps = iter([("training experts", needed.command(results, environment))])
                yield _Job(needed.name, steps, needed.log(results), experts=needed)
        if all(needed.file(results).exists() and needed not in training for needed in cell.needs):
            log = results / cell.name / "log.txt"
            yield _Job(cell.name, _steps(cell, results, environment), log, cell=cell)


def _steps(cell: Cell, results: Path, environment: Environment) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands that a cell still needs, each when the one before has left its files."""
    folder = results / cell.name
    if not (folder / "set.h5").exists():
        for stale in (*folder.glob("evaluation*.json"), *folder.glob("curve-*.json")):
            files.remove(stale)
        cell_files.remove_labels(cell, results)
        cell_files.remove_copies(folder / "set.h5")
        yield "distilling", cell.distil(results, environment)
    if cell.label and not cell.labelled_file(results).exists():
        cell_files.remove_copies(cell.labelled_file(results))
        for evaluation in cell.all_evaluations:
            if evaluation.labelled:
                files.remove(cell.report(evaluation, results))
        yield _LABELLING, cell.labelling(results, environment)
    for evaluation in cell.all_evaluations:
        if cell_files.is_evaluated(cell.report(evaluation, results)):
            continue
        copy = f" in {evaluation.bits} bits" if evaluation.bits else ""
        if copy and not cell.evaluated_file(evaluation, results).exists():
            yield f"encoding{copy}", cell.encode(evaluation, results)
        stage = " ".join(f"evaluating {evaluation.name}{copy}".split())
        yield stage, cell.evaluate(evaluation, results, environment)
    for snapshot in cell.run(results).snapshots():
        if not cell_files.is_evaluated(cell.snapshot_report(results, snapshot)):
            stage = f"evaluating {snapshot.stem}"
            yield stage, cell.evaluate_snapshot(results, snapshot, environment)


_LABELLING = "labelling"


def _account(job: _Job, results: Path) -> None:
    """Add the time of a labelling that is over to what the cell's labels have taken."""
    if job.cell and job.process is not None and job.stage == _LABELLING:
        cell_files.add_label_seconds(job.cell, results, time.monotonic() - job.began)


def _failure(job: _Job) -> str:
    """Return why a job's last command failed, in its own words; empty where it did not."""
    code = job.process.returncode if job.process else 0
    if code == 0:
        return ""
    try:
        text = files.read(job.log).decode(errors="replace")
    except OSError:
        text = ""
    lines = text.rpartition("\n$ dsdistill ")[2].splitlines()  # of the last command alone
    message = next(
        (line.removeprefix("dsdistill: ") for line in reversed(lines) if line.startswith("dsdistill: ")), ""
    )
    exit_status = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{message or exit_status} (see {job.log})"


def _stop(jobs: Sequence[_Job], results: Path) -> None:
    """Ask processes to save their states and end, and wait for them."""
    alive = [job.process for job in jobs if job.process and job.process.poll() is None]
    for process in alive:
        process.terminate()
    for process in alive:
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for job in jobs:
        _account(job, results)
