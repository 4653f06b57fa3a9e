"""What the command line shows: progress on stderr, results on stdout."""

from __future__ import annotations

import math
import os
import sys
import time
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from dsdistill.text import byte_size, clock, listing, ranges, spread

if TYPE_CHECKING:
    from dsdistill.bench.lines import Line
    from dsdistill.bench.runner import Event
    from dsdistill.distillation.run import RunStart, Summary
    from dsdistill.experts.run import TrainingStart
    from dsdistill.storage.expert_file import ExpertFile
    from dsdistill.storage.set_file import Description

_WIDE = 200  # columns where there is no terminal: a file or a pipe wants a row on one line

out = Console(soft_wrap=True, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE)
err = Console(stderr=True, soft_wrap=True)


def notify(sentence: str) -> None:
    """Show a sentence worth reading."""
    err.print(sentence, style="yellow", highlight=False, markup=False)


class ProgressBar:
    """A progress bar with an ETA; where stderr is no terminal, a line now and then instead."""

    LINE_EVERY = 30.0  # seconds

    def __init__(self, *fields: str) -> None:
        columns = [TextColumn("{task.description}", markup=False), BarColumn()]
        columns += [TextColumn("{task.completed:.0f}/{task.total:.0f}"), *map(TextColumn, fields)]
        times = (TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(elapsed_when_finished=False))
        self._progress = Progress(*columns, *times, console=err, disable=not err.is_terminal)
        self._task: TaskID | None = None
        self._line_at = -self.LINE_EVERY
        self._begun = 0.0
        self._before = 0  # what was done when the clock started

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def notify(self, sentence: str) -> None:
        """Show a sentence above the bar."""
        notify(sentence)

    def _advance(self, what: str, done: int, total: int, first: int = 0, **fields: Any) -> None:
        if self._task is None:
            self._begun, self._before = time.monotonic(), done
            self._task = self._progress.add_task(what, total=total, completed=first, **fields)
            if first:
                self._progress.reset(self._task, completed=first, start=True)
        self._progress.update(self._task, description=what, completed=done, total=total, **fields)
        now = time.monotonic()
        if not err.is_terminal and (now - self._line_at >= self.LINE_EVERY or done == total):
            self._line_at = now
            words = [what, f"{done}/{total}", *fields.values()]
            if self._before < done < total:  # one observation says nothing of the pace
                left = (now - self._begun) / (done - self._before) * (total - done)
                words.append(f"ETA {clock(left)}")
            err.print(" ".join(filter(None, words)), highlight=False, markup=False)


class DistillationProgress(ProgressBar):
    """Progress of `distill`."""

    def __init__(self) -> None:
        super().__init__("{task.fields[loss]}", "{task.fields[rate]}")
        self._first = self._total = self._budget = 0
        self._what = ""
        self._start = 0.0

    def started(self, run: RunStart) -> None:
        """Say what is about to happen, and what it is expected to need."""
        cfg, memory = run.config, run.memory
        self._first, self._total, self._start = run.iteration, cfg.iterations, time.monotonic()
        self._budget = math.ceil(cfg.seconds)
        self._what = f"{cfg.method} {run.task.name} IPC {cfg.ipc}"
        count = run.task.num_classes * cfg.ipc
        compiled = ", compiled (the first steps take a minute)"
        length = f"{cfg.seconds:g} seconds" if cfg.seconds else f"{cfg.iterations} iterations"
        lines = [
            f"{run.task.name}: {len(run.real)} images of {'x'.join(map(str, run.task.shape))}, "
            f"{run.task.num_classes} classes -> {count} synthetic images",
            f"{cfg.method}, {cfg.network}, {length} on {cfg.compute.device}, "
            f"{cfg.compute.precision}{compiled * bool(cfg.compute.compile)}",
            f"memory estimate {byte_size(memory.total)}: real data {byte_size(memory.real)}, "
            f"graph {byte_size(memory.graph)}, passes {byte_size(memory.frozen)}, "
            f"networks {byte_size(memory.networks)}, synthetic {byte_size(memory.synthetic)}",
        ]
        if run.iteration:
            lines.append(f"resuming after iteration {run.iteration}")
        if run.memory_available is not None and memory.total > run.memory_available:
            lines.append(
                f"only {byte_size(run.memory_available)} is free: "
                "--set compute.class_chunk=1 --set compute.chunk=8 needs less"
            )
        for line in lines:
            err.print(line, highlight=False, markup=False)

    def progress(self, entry: dict[str, Any]) -> None:
        """Advance to an iteration."""
        done = entry["iteration"]
        rate = (done - self._first) / max(1e-9, time.monotonic() - self._start)
        shown = {"loss": f"loss {entry['loss']:.4g}", "rate": f"{rate:.2f} it/s"}
        if self._budget:  # the bar counts seconds
            spent = min(self._budget, round(entry["seconds"]))
            self._advance(f"{self._what}, iteration {done}, seconds", spent, self._budget, 0, **shown)
        else:
            self._advance(self._what, done, self._total, self._first, **shown)


class ExpertsProgress(ProgressBar):
    """Progress of `experts`, in epochs of all."""

    def __init__(self) -> None:
        super().__init__("{task.fields[expert]}", "{task.fields[loss]}")
        self._run: TrainingStart | None = None

    def started(self, run: TrainingStart) -> None:
        """Say what is about to happen, and how large the file will be."""
        self._run = run
        cfg, task = run.config, run.task
        compiled = ", compiled (the first steps take a minute)"
        some = f", {run.before} of them there already" if run.before else ""
        lines = [
            f"{task.name}: {len(run.real)} images of {'x'.join(map(str, task.shape))}, "
            f"{task.num_classes} classes",
            f"{cfg.count} x {cfg.network} ({run.parameters} parameters) for {cfg.epochs} epochs{some}; on "
            f"{cfg.compute.device}, {cfg.compute.precision}{compiled * bool(cfg.compute.compile)}",
            f"file: {byte_size(run.file_bytes)}, {len(cfg.kept)} snapshots of each",
        ]
        if run.epochs_done:
            lines.append(f"resuming after {run.epochs_done} of {run.epochs} epochs")
        for line in lines:
            err.print(line, highlight=False, markup=False)

    def estimated(self, seconds: float) -> None:
        """Say about how long it will take."""
        err.print(f"estimated time {clock(seconds)}", highlight=False, markup=False)
        if self._run:
            self._show(self._run.epochs_done)

    def progress(self, entry: dict[str, Any]) -> None:
        """Advance by an epoch."""
        self._show(entry["done"], f"expert {entry['expert']}", f"loss {entry['loss']:.4g}")

    def _show(self, done: int, expert: str = "", loss: str = "") -> None:
        assert self._run
        self._advance(
            f"{Path(self._run.config.recipe).stem} {self._run.task.name}",
            done,
            self._run.epochs,
            self._run.epochs_done,
            expert=expert,
            loss=loss,
        )


class EvaluationProgress(ProgressBar):
    """Progress of `evaluate`."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Advance to a training step."""
        self._advance(what, done, total)


class SuiteProgress(ProgressBar):
    """Progress of `bench`, in cells."""

    def __init__(self, name: str, cells: int) -> None:
        super().__init__("{task.fields[running]}")
        self._name, self._cells = name, cells
        self._first: int | None = None

    def happened(self, event: Event) -> None:
        """Say what finished or failed, and show what runs."""
        if event.result:
            spent = clock(event.result.seconds)
            found = f"{event.name}: {event.result.main.accuracy} %, distilled in {spent}"
            err.print(found, highlight=False, markup=False)
        elif event.failure:
            err.print(f"{event.name} failed: {event.failure}", style="red", highlight=False, markup=False)
        self._first = event.done if self._first is None else self._first
        shown = f"{event.name} {event.stage}" if event.name in event.running else ", ".join(event.running)
        self._advance(self._name, event.done, self._cells, self._first, running=shown)


def print_lines(lines: Sequence[Line]) -> None:
    """Show accuracies, a line per method, student and IPC."""
    from rich.table import Table

    printed = any(line.published for line in lines)
    table = Table(caption="last epoch, mean ± standard deviation over students")
    for name in ("data, IPC", "trained on", "student", "protocol"):
        table.add_column(name, overflow="fold")
    for name in ("accuracy %", "students", *(["published %"] if printed else [])):
        table.add_column(name, justify="right", no_wrap=name != "students")
    previous = ""
    for line in lines:
        where = f"{line.dataset}, {line.ipc}"
        if previous not in ("", where):
            table.add_section()
        row = [where, line.method, line.network, line.protocol, line.accuracy, line.over]
        table.add_row(*row, *([str(line.published or "")] if printed else []))
        previous = where
    out.print(table)


def print_summary(summary: Summary) -> None:
    """Show how a distillation went."""
    rows = [
        ("file", f"{summary.path} ({summary.images} images, {byte_size(summary.path.stat().st_size)})"),
        ("time", f"{clock(summary.seconds)}, {summary.iterations} iterations"),
        ("peak memory", byte_size(summary.peak_memory_bytes)),
        ("run directory", f"{summary.run_dir} (config.toml, metrics.jsonl, checkpoints)"),
        ("next", f"dsdistill evaluate {summary.path}"),
    ]
    if not math.isnan(summary.first_loss):  # a run that was finished already takes no step
        means = f"{summary.first_loss:.4g} -> {summary.last_loss:.4g}"
        rows.insert(1, ("loss", f"{means} (means of the first and last 5 %)"))
    if summary.storage_error:
        rows.insert(1, ("storage", f"changed pixels by up to {summary.storage_error:.2g}"))
    print_pairs(rows)


def print_experts(made: ExpertFile) -> None:
    """Show how the training of experts went, on the training images."""
    each = [
        (
            f"expert {number}",
            f"accuracy {100 * one.accuracy:.2f} %, loss {one.loss:.4g}, {clock(one.seconds)}",
        )
        for number, one in enumerate(made.training)
    ]
    kept = f"{len(made.epochs)} snapshots each"
    file = f"{made.path} ({made.count} experts, {kept}, {byte_size(made.path.stat().st_size)})"
    mean = sum(one.accuracy for one in made.training) / made.count
    spent = clock(sum(one.seconds for one in made.training))
    print_pairs([*each, ("all", f"accuracy on training images {100 * mean:.2f} %, {spent}"), ("file", file)])


def print_description(path: Path, about: Description) -> None:
    """Show what is in a file."""
    counts = set(about.counts)
    each = f"{min(counts)} a class" if len(counts) == 1 else f"{min(counts)} to {max(counts)} a class"
    said = about.attributes
    rows = [
        ("file", f"{path}, verified, {byte_size(about.file_bytes)}"),
        ("images", f"{sum(about.counts)} of {'x'.join(map(str, about.shape))} {about.dtype}, {each}"),
        *_formed(about),
        ("classes", listing(about.classes)),
        (
            "on disk",
            f"images {byte_size(about.image_bytes)}, labels {byte_size(about.label_bytes)}, "
            f"preprocessing {byte_size(about.preprocess_bytes)}",
        ),
        ("preprocess", about.preprocess),
        *(
            (name.replace("_", " "), _told(name, said[name]))
            for name in said
            if name not in ("config", "packages")
        ),
    ]
    print_pairs(rows)
    for result in about.results:
        count = len(result["values"])
        found = spread(result["mean"], result["std"], count)
        line = Text(result["set"], style="bold").append(
            f" {result['network']}, protocol {result['protocol']}, {result['epochs']} epochs: {found} % "
            f"({count} student{'s' * (count > 1)}, {result['date'][:10]})",
            style="not bold",
        )
        out.print(line)


def print_buffer(found: ExpertFile) -> None:
    """Show what is in a file of experts."""
    facts, trained = found.metadata, found.training
    recipe = tomllib.loads(facts.config).get("recipe", "")
    low, high = (100 * pick(one.accuracy for one in trained) for pick in (min, max))
    machines = dict.fromkeys(one.machine for one in trained)
    each = f"{facts.layout.sizes[0]} parameters, {byte_size(facts.expert_bytes)}"
    shape = "x".join(map(str, (facts.channels, facts.size, facts.size)))
    rows = [
        ("file", f"{found.path}, structure verified, {byte_size(found.path.stat().st_size)}"),
        ("experts", f"{found.count} of {facts.network} ({each} each)"),
        ("kept epochs", ranges(found.epochs)),
        ("accuracy", f"{low:.2f} to {high:.2f} % on training images"),
        ("images", shape),
        ("classes", listing(facts.classes)),
        ("preprocess", facts.preprocess.kind),
        ("created", max(one.created for one in trained)),
        ("dataset", facts.dataset),
        ("fingerprint", facts.fingerprint),
        ("machine", "; ".join(machines)),
        *([("recipe", Path(recipe).stem)] if recipe else []),
        ("seconds", _told("seconds", sum(one.seconds for one in trained))),
        ("seed", str(facts.seed)),
    ]
    print_pairs(rows)


def _formed(about: Description) -> list[tuple[str, str]]:
    """Say what a multi-formation decodes into."""
    formation = about.formation
    if formation.is_identity:
        return []
    how = f"factor {formation.factor}, {formation.mode}"
    return [("decoded", f"into {sum(about.decoded)} training images ({how})")]


def print_text(text: str) -> None:
    """Show a text as it is."""
    out.print(text.rstrip("\n"), highlight=False, markup=False)


def print_pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and what they mean in two columns; lines are left whole, so that paths can be copied."""
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    for name, meaning in listed:
        out.print(Text(f"{name:<{width}}  ", style="bold").append(meaning, style="not bold"))


def _told(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return byte_size(int(value))
    return clock(float(value)) if name == "seconds" else str(value)
