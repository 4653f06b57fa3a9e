"""Running cells, each command in a process of its own: one that fails or crashes leaves the others alone."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsdistill.bench import results as stored
from dsdistill.bench.cells import Cell, Environment, ExpertSet
from dsdistill.bench.results import CellResult
from dsdistill.errors import UserError
from dsdistill.runtime.signals import Interrupted, deferred_signals

MEMORY_EACH = 3 * 10**9
"""Bytes that a cell is reckoned to need beside others."""

Launch = Callable[[Sequence[str], Path, int], "subprocess.Popen[bytes]"]
"""Starts ``dsdistill`` with some words: where its output is appended, and its threads (0: its own choice)."""


@dataclass(frozen=True)
class Event:
    """Something happened: a command began, or a job finished or failed."""

    name: str
    what: str
    """"distilling", "judging", "training experts"; "finished", "failed"."""
    done: int
    """Cells that are finished or failed."""
    total: int
    result: CellResult | None = None
    failure: str = ""
    running: tuple[str, ...] = ()


@dataclass
class _Job:
    """A cell or its experts under way: the commands that are left follow from the files that are there."""

    name: str
    steps: Iterator[tuple[str, list[str]]]
    log: Path
    cell: Cell | None = None
    experts: ExpertSet | None = None
    process: subprocess.Popen[bytes] | None = None


def launch(words: Sequence[str], log: Path, threads: int) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that Ctrl-C reaches it through us alone."""
    told = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with log.open("ab") as file:
        file.write(f"\n$ dsdistill {shlex.join(words)}\n".encode())
        file.flush()
        return subprocess.Popen(
            [sys.executable, "-m", "dsdistill", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=tuple(_locks),
            env=told,
        )


def workers_for(
    asked: str, cells: int, *, cores: int, memory: int | None, timed: bool, on_gpu: bool
) -> tuple[int, int]:
    """Decide how many cells run side by side, and with how many threads each.

    Args:
        asked: a number, or "auto": as many as there are cores, and memory at 3 GB each; but one where cells
            have a budget of seconds, which neighbours would slow down unequally, and one on a GPU.
        cells: how many are to run.
        cores: threads that torch would take.
        memory: bytes free, or None where that is not known.

    Returns:
        workers, and threads each (0: their own choice).

    Raises:
        UserError: ``asked`` is neither.
    """
    if asked == "auto":
        fit = cores if memory is None else min(cores, memory // MEMORY_EACH)
        workers = max(1, min(fit, cells)) if not (timed or on_gpu) else 1
    elif asked.isdecimal() and int(asked) >= 1:
        workers = min(int(asked), max(1, cells))
    else:
        raise UserError(f"--workers takes auto or a number from 1, not {asked!r}")
    return workers, max(1, cores // workers) if workers > 1 else 0


def run(
    suite: str,
    cells: Sequence[Cell],
    results: Path,
    where: Environment,
    workers: int,
    threads: int,
    notify: Callable[[Event], None],
    launch: Launch = launch,
) -> dict[str, str]:
    """Make and judge cells, leaving alone what is done; each goes on where it was stopped.

    Args:
        suite: the suite's name, for the results.
        results: the folder; one process at a time works in it.
        workers, threads: cells side by side, and the threads of each.
        notify: called with everything that happens.

    Returns:
        why each cell that failed did, by name; failures of experts are those of the cells they are for.

    Raises:
        UserError: a cell was begun with other settings, or another process works here.
        Interrupted: on SIGINT or SIGTERM, after the running commands have saved their states.
    """
    results.mkdir(parents=True, exist_ok=True)
    with _alone(results):
        stored.write_told([*cells, *(cell.experts for cell in cells if cell.experts)], results)
        work = _Work(suite, cells, results, where, threads, notify, launch)
        with deferred_signals() as received:
            try:
                while work.left or work.running:
                    if received:
                        raise Interrupted(received[0])
                    if not (len(work.running) < workers and work.start_one()):
                        time.sleep(0.05)
                    for job in list(work.running):
                        work.advance(job)
            finally:
                _stop(work.running)
        return work.failed


class _Work:
    """The cells that are left and the jobs under way.

    Attributes:
        left: cells not begun. running: jobs. failed: why, by name of the cell.
    """

    def __init__(
        self,
        suite: str,
        cells: Sequence[Cell],
        results: Path,
        where: Environment,
        threads: int,
        notify: Callable[[Event], None],
        launch: Launch,
    ) -> None:
        self.left = [cell for cell in cells if not stored.done(cell, results)]
        self.running: list[_Job] = []
        self.failed: dict[str, str] = {}
        self._total, self._finished = len(cells), len(cells) - len(self.left)
        self._suite, self._results, self._where = suite, results, where
        self._threads, self._notify, self._launch = threads, notify, launch

    def start_one(self) -> bool:
        """Take up a job that could start now; False where there is none."""
        job = next(_ready(self.left, self.running, self._results, self._where), None)
        if job is None:
            return False
        self.running.append(job)
        if job.cell:
            self.left.remove(job.cell)
            stored.write_failure(job.cell, self._results, "")
        return True

    def advance(self, job: _Job) -> None:
        """Start a job's next command when the one before has ended; after the last, finish it."""
        if job.process is not None and job.process.poll() is None:
            return
        why = _why_failed(job)
        try:
            if not why and (step := next(job.steps, None)):
                what, words = step
                job.process = self._launch(words, job.log, self._threads)
                self._tell(job.name, what)
                return
            self.running.remove(job)
            if not why and job.cell:
                commands = job.cell.commands(self._results, self._where)
                result = stored.finish(self._suite, job.cell, self._results, commands)
                self._finished += 1
                self._tell(job.name, "finished", result)
        except UserError as error:
            why = str(error)
        if why:
            self._fail(job, why)

    def _fail(self, job: _Job, why: str) -> None:
        """Give up a cell, or those that wait for experts."""
        if job in self.running:
            self.running.remove(job)
        for cell in [job.cell] if job.cell else [each for each in self.left if each.experts == job.experts]:
            if cell in self.left:
                self.left.remove(cell)
            self.failed[cell.name] = why
            stored.write_failure(cell, self._results, why)
            self._tell(cell.name, "failed", failure=why)

    def _tell(self, name: str, what: str, result: CellResult | None = None, failure: str = "") -> None:
        names = tuple(job.name for job in self.running)
        done = self._finished + len(self.failed)
        self._notify(Event(name, what, done, self._total, result, failure, names))


def _ready(
    left: Sequence[Cell], running: Sequence[_Job], results: Path, where: Environment
) -> Iterator[_Job]:
    """Yield what could start now: the next cells, or the experts that one waits for."""
    training = [job.experts for job in running if job.experts]
    for cell in left:
        needed = cell.experts
        if needed and needed in training:
            continue
        if needed and not stored.trained(needed, results):
            needed.file(results).parent.mkdir(parents=True, exist_ok=True)
            steps = iter([("training experts", needed.command(results, where))])
            yield _Job(needed.name, steps, needed.log(results), experts=needed)
        else:
            log = results / cell.name / "log.txt"
            yield _Job(cell.name, _steps(cell, results, where), log, cell=cell)


def _steps(cell: Cell, results: Path, where: Environment) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands that a cell still needs, each when the one before has left its files."""
    folder = results / cell.name
    if not (folder / "set.h5").exists():
        for stale in (*folder.glob("evaluation.json"), *folder.glob("curve-*.json")):
            stale.unlink()
        yield "distilling", cell.distil(results, where)
    if not stored.verdict_done(folder / "evaluation.json"):
        yield "judging", cell.evaluate(results, where)
    for snapshot in cell.run(results).snapshots():
        if not stored.verdict_done(cell.verdict(results, snapshot)):
            yield f"judging {snapshot.stem}", cell.evaluate_snapshot(results, snapshot, where)


def _why_failed(job: _Job) -> str:
    """Return why a job's last command failed, in its own words; empty where it did not."""
    code = job.process.returncode if job.process else 0
    if code == 0:
        return ""
    text = job.log.read_text(errors="replace") if job.log.exists() else ""
    lines = text.rpartition("\n$ dsdistill ")[2].splitlines()  # of earlier commands, nothing
    said = next(
        (line.removeprefix("dsdistill: ") for line in reversed(lines) if line.startswith("dsdistill: ")), ""
    )
    ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{said or ended} (see {job.log})"


def _stop(jobs: Sequence[_Job]) -> None:
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


_locks: list[int] = []
"""Open locks, which commands inherit: one that outlives us keeps its folder locked."""


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep two suites from working in one folder (POSIX only).

    Raises:
        UserError: another one does.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another suite, or a command that it left running, works in {folder}; "
                "wait for it, or choose another -o"
            ) from None
        except OSError:
            pass  # some file systems cannot lock
        _locks.append(handle)
        yield
    finally:
        if handle in _locks:
            _locks.remove(handle)
        os.close(handle)
