"""Progress on stderr: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dsdistill.cli import console
from dsdistill.cli.console import err
from dsdistill.config.ipc import as_words, counts_of
from dsdistill.text import byte_size, clock, plain

if TYPE_CHECKING:
    from dsdistill.bench.runner import Event
    from dsdistill.data.real import RealDataset, Task
    from dsdistill.distillation.run import RunStart
    from dsdistill.experts.run import TrainingStart
    from dsdistill.runtime.config import ComputeConfig


class ProgressBar:
    """A progress bar with an ETA; where stderr is no terminal, a line now and then instead."""

    LINE_EVERY = 30.0  # seconds
    LONG_DECODING = 200  # picture files

    def __init__(self, *fields: str) -> None:
        columns = [TextColumn("{task.description}", markup=False), BarColumn()]
        columns += [TextColumn("{task.completed:.0f}/{task.total:.0f}")]
        columns += [TextColumn(f"{{task.fields[{field}]}}", markup=False) for field in fields]
        self._blank: dict[str, Any] = dict.fromkeys(fields, "")
        times = (TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(elapsed_when_finished=False))
        self._progress = Progress(*columns, *times, console=err, disable=not err.is_terminal)
        self._task: TaskID | None = None
        self._decoding: TaskID | None = None
        self._line_time = -self.LINE_EVERY
        self._start_time = 0.0
        self._start_count = 0  # the work that was done at that time

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_decoding()
        self._progress.stop()

    def notify(self, sentence: str) -> None:
        """Show a sentence above the bar."""
        console.notify(sentence)

    def decoding(self, what: str, done: int, total: int) -> None:
        """Show how far a long list of picture files is read; only on a terminal, and until it is done."""
        if total <= self.LONG_DECODING or not err.is_terminal:
            return
        what = plain(what)
        if self._decoding is None:
            self._decoding = self._progress.add_task(what, total=total, **self._blank)
        self._progress.update(self._decoding, description=what, completed=done, total=total)
        if done == total:
            self._end_decoding()

    def _end_decoding(self) -> None:
        if self._decoding is not None:
            self._progress.remove_task(self._decoding)
            self._decoding = None

    def _advance(self, title: str, done: int, total: int, first: int = 0, **fields: Any) -> None:
        """Show that ``done`` of ``total`` are done, of which an earlier run did the first ones."""
        title, fields = plain(title), {key: plain(value) for key, value in fields.items()}
        if self._task is None:
            self._start_time, self._start_count = time.monotonic(), done
            self._task = self._progress.add_task(title, total=total, completed=first, **fields)
            if first:
                self._progress.reset(self._task, completed=first, start=True)
        self._progress.update(self._task, description=title, completed=done, total=total, **fields)
        now = time.monotonic()
        if not err.is_terminal and (now - self._line_time >= self.LINE_EVERY or done == total):
            self._line_time = now
            words = [title, f"{done}/{total}", *fields.values()]
            if self._start_count < done < total:  # one observation gives no pace
                seconds = (now - self._start_time) / (done - self._start_count) * (total - done)
                words.append(f"ETA {clock(seconds)}")
            _print([" ".join(filter(None, words))])


class DistillationProgress(ProgressBar):
    """Progress of `distill`."""

    def __init__(self) -> None:
        super().__init__("loss", "rate")
        self._first = self._total = self._budget = 0
        self._title = ""
        self._start = 0.0

    def started(self, run: RunStart) -> None:
        """Describe the run and its expected memory."""
        config, memory = run.config, run.memory
        self._first, self._total, self._start = run.iteration, config.iterations, time.monotonic()
        self._budget = math.ceil(config.seconds)
        self._title = f"{config.method} {run.task.name} IPC {as_words(config.ipc)}"
        count = sum(counts_of(config.ipc, run.task.num_classes))
        length = f"{config.seconds:g} seconds" if config.seconds else f"{config.iterations} iterations"
        lines = [
            f"{_data(run.task, run.real)} -> {count} synthetic images",
            f"{config.method}, {config.network}, {length} on {_hardware(config.compute)}",
            f"memory estimate {byte_size(memory.total)}: real data {byte_size(memory.real)}, "
            f"graph {byte_size(memory.graph)}, passes {byte_size(memory.frozen)}, "
            f"networks {byte_size(memory.networks)}, synthetic {byte_size(memory.synthetic)}, "
            f"allocator {byte_size(memory.allocator)}",
        ]
        if run.iteration:
            lines.append(f"resuming after iteration {run.iteration}")
        if run.memory_available is not None and memory.total > run.memory_available:
            lines.append(
                f"only {byte_size(run.memory_available)} is free: "
                "--set compute.class_chunk=1 --set compute.chunk=8 needs less"
            )
        _print(lines)

    def progress(self, entry: dict[str, Any]) -> None:
        """Advance to an iteration."""
        done = entry["iteration"]
        rate = (done - self._first) / max(1e-9, time.monotonic() - self._start)
        fields = {"loss": f"loss {entry['loss']:.4g}", "rate": f"{rate:.2f} it/s"}
        if self._budget:  # the bar counts seconds
            seconds = min(self._budget, round(entry["seconds"]))
            self._advance(f"{self._title}, iteration {done}, seconds", seconds, self._budget, 0, **fields)
        else:
            self._advance(self._title, done, self._total, self._first, **fields)


class ExpertsProgress(ProgressBar):
    """Progress of `experts`, in epochs of all."""

    def __init__(self) -> None:
        super().__init__("expert", "loss")
        self._run: TrainingStart | None = None

    def started(self, run: TrainingStart) -> None:
        """Describe the training and the size of its file."""
        self._run = run
        config = run.config
        existing = f", {run.existing} of them there already" if run.existing else ""
        lines = [
            _data(run.task, run.real),
            f"{config.count} x {config.network} ({run.parameters} parameters) for {config.epochs} epochs"
            f"{existing}; on {_hardware(config.compute)}",
            f"file: {byte_size(run.file_bytes)}, {len(config.stored_epochs)} snapshots of each",
        ]
        if run.epochs_done:
            lines.append(f"resuming after {run.epochs_done} of {run.epochs} epochs")
        _print(lines)

    def estimated(self, seconds: float) -> None:
        """Show the estimated time."""
        _print([f"estimated time {clock(seconds)}"])
        if self._run:
            self._show(self._run.epochs_done)

    def progress(self, entry: dict[str, Any]) -> None:
        """Advance by an epoch."""
        self._show(entry["done"], f"expert {entry['expert']}", f"loss {entry['loss']:.4g}")

    def _show(self, done: int, expert: str = "", loss: str = "") -> None:
        assert self._run
        run = self._run
        title = f"{Path(run.config.recipe).stem} {run.task.name}"
        self._advance(title, done, run.epochs, run.epochs_done, expert=expert, loss=loss)


class EvaluationProgress(ProgressBar):
    """Progress of `evaluate`."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Advance to a training step."""
        self._advance(what, done, total)


class SuiteProgress(ProgressBar):
    """Progress of `bench`, in cells."""

    def __init__(self, name: str, cells: int) -> None:
        super().__init__("running")
        self._name, self._cells = name, cells
        self._first: int | None = None

    def happened(self, event: Event) -> None:
        """Show which cells run, and print the one that finished or failed."""
        if event.result:
            seconds = clock(event.result.seconds)
            _print([f"{event.name}: {event.result.main.accuracy} %, distilled in {seconds}"])
        elif event.failure:
            console.notify(f"{event.name} failed: {event.failure}", style="red")
        self._first = event.done if self._first is None else self._first
        running = f"{event.name} {event.stage}" if event.name in event.running else ", ".join(event.running)
        self._advance(self._name, event.done, self._cells, self._first, running=running)


def _data(task: Task, real: RealDataset) -> str:
    shape = "x".join(map(str, task.shape))
    return f"{task.name}: {len(real)} images of {shape}, {task.num_classes} classes"


def _hardware(compute: ComputeConfig) -> str:
    compiled = ", compiled (the first steps take a minute)" if compute.compile else ""
    return f"{compute.device}, {compute.precision}{compiled}"


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        console.notify(line, style="")
