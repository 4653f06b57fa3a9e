"""The two streams of the command line: results on stdout, notices on stderr.

Texts come from files that others made, so each is made `plain` here; neither stream interprets markup.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from dsdistill.cli.next_step import after_distilling
from dsdistill.config.unlabelled import is_labelled
from dsdistill.runtime import launch
from dsdistill.text import byte_size, clock, listing, plain, plain_lines, ranges

if TYPE_CHECKING:
    from dsdistill.bench.lines import Line
    from dsdistill.distillation.summary import Summary
    from dsdistill.runtime.estimate import RunEstimate
    from dsdistill.storage.expert_file import ExpertFile
    from dsdistill.storage.set_description import Description

_WIDE = 200  # columns of a file or a pipe, so that a row of a table stays on one line
_SENTENCE, _NAME = 2000, 60  # characters

out = Console(
    width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE,
    soft_wrap=True,
    markup=False,
    emoji=False,
)
err = Console(stderr=True, soft_wrap=True, markup=False, emoji=False)
for _stream in (out, err):
    _stream.quiet = not launch.is_first()


def notify(sentence: str, style: str = "yellow") -> None:
    """Show a notice."""
    err.print(plain(sentence, _SENTENCE), style=style, highlight=False)


def say(sentence: str) -> None:
    """Print a result in one line."""
    out.print(plain(sentence, _SENTENCE), highlight=False)


def print_lines(lines: Sequence[Line]) -> None:
    """Print accuracies, a line per method, student and IPC."""
    from rich.table import Table

    has_published = any(line.published for line in lines)
    has_copies = any(line.of_copy for line in lines)
    has_regimes = any(line.regime != "HL" for line in lines)
    table = Table(caption="last epoch, mean ± standard deviation over students")
    for name in ("data, IPC", "trained on", *(["labels"] if has_regimes else []), "student", "protocol"):
        table.add_column(name, overflow="fold")
    numbers = [*(["bits"] if has_copies else []), "accuracy %", "students"]
    for name in (*numbers, *(["published %"] if has_published else [])):
        table.add_column(name, justify="right", no_wrap=name != "students")
    previous = ""
    for line in lines:
        data = f"{line.dataset}, {line.ipc}"
        if previous not in ("", data):
            table.add_section()
        row = [data, line.method, *([line.regime] if has_regimes else []), line.network, line.protocol]
        row += [str(line.bits or "")] if has_copies else []
        row += [line.accuracy, line.over]
        row += [str(line.published or "")] if has_published else []
        table.add_row(*map(plain, row))
        previous = data
    out.print(table)


def print_summary(summary: Summary) -> None:
    """Print the summary of a distillation."""
    whose = "on the GPU" if summary.on_gpu else "the whole process"
    images = f"{summary.images - summary.compensators} images"
    images += f" and {summary.compensators} compensators" if summary.compensators else ""
    peak = f"{byte_size(summary.peak_memory_bytes)} ({whose})"
    rows = [
        ("file", f"{summary.path} ({images}, {byte_size(summary.path.stat().st_size)})"),
        ("time", f"{clock(summary.seconds)}, {summary.iterations} iterations"),
        *([("peak memory", peak)] if summary.peak_memory_bytes else []),  # not known without a step
        ("run directory", f"{summary.run_dir} (config.toml, metrics.jsonl, checkpoints)"),
        ("next", after_distilling(summary)),
    ]
    if not math.isnan(summary.first_loss):  # NaN if this call took no step and the log is gone
        means = f"{summary.first_loss:.4g} -> {summary.last_loss:.4g}"
        rows.insert(1, ("loss", f"{means} (means of the first and last 5 %)"))
    if summary.storage:
        changed = f", changed pixels by up to {summary.storage_error:.2g}" if summary.storage_error else ""
        rows.insert(1, ("storage", summary.storage + changed))
    print_pairs(rows)


def print_estimate(estimate: RunEstimate) -> RunEstimate:
    """Print what a run takes, and return it."""
    print_pairs(estimate.rows())
    return estimate


def print_training(experts: ExpertFile) -> None:
    """Print the accuracy of each expert, at the end of its training, and the time that it took."""
    records, path = experts.training, experts.path
    labelled, what = is_labelled(experts.metadata.classes), _accuracy_words(experts)
    rows = []
    for number, record in enumerate(records):
        tested = "".join(
            f", {100 * accuracies[-1]:.2f} % on {images}"
            for name, images in _UNSEEN.items()
            if (accuracies := getattr(record, name))
        )
        figures = f"loss {record.loss:.4g}{tested}, {clock(record.seconds)}"
        accuracy = f"{what} {100 * record.accuracy:.2f} %, " if labelled else ""
        rows.append((f"expert {number}", accuracy + figures))
    mean = sum(record.accuracy for record in records) / experts.count
    seconds = sum(record.seconds for record in records)
    content = f"{experts.count} experts, {len(experts.epochs)} snapshots each"
    mean_accuracy = f"{what} on training images {100 * mean:.2f} %, " if labelled else ""
    rows.append(("all", mean_accuracy + clock(seconds)))
    rows += _accuracy_rows(experts)
    rows.append(("file", f"{path} ({content}, {byte_size(path.stat().st_size)})"))
    print_pairs(rows)


def print_description(path: Path, about: Description) -> None:
    """Print the content of a distilled set and its results."""
    from dsdistill.evaluation.rows import read_row

    low, high = min(about.counts), max(about.counts)
    per_class = f", {low} a class" if low == high else f", {low} to {high} a class"
    labelled = is_labelled(about.classes)
    attributes = about.attributes
    views = f" (of them views {byte_size(about.view_bytes)})" if about.view_bytes else ""
    rows = [
        ("file", f"{path}, verified, {byte_size(about.file_bytes)}"),
        ("images", f"{sum(about.counts)} of {'x'.join(map(str, about.shape))}{per_class * labelled}"),
        ("stored as", about.storage),
        *_decoded_rows(about),
        ("classes", listing(about.classes) if labelled else "none, the images have no labels"),
        ("labels", about.labels),
        (
            "on disk",
            f"images {byte_size(about.image_bytes)}, labels {byte_size(about.label_bytes)}{views}, "
            f"preprocessing {byte_size(about.preprocess_bytes)}",
        ),
        ("preprocess", about.preprocess),
        *(
            (name.replace("_", " "), _quantity(name, value))
            for name, value in attributes.items()
            if name not in ("config", "packages", "labels")
        ),
    ]
    print_pairs(rows)
    for result in about.results:
        if row := read_row(result):
            count = len(row.values)
            epochs = f"{row.epochs} epochs" if row.epochs else "not pre-trained"
            meaning = (
                f" {row.network}, protocol {row.protocol}, {epochs}: {row.accuracy} % "
                f"{row.regime} ({count} student{'s' * (count > 1)}, {str(result.get('date', ''))[:10]})"
            )
            whole = sum(about.counts) + about.compensators
            meaning += f", then {row.transfer.words}" if row.transfer else ""
            part = row.set.startswith("distilled") and row.images < whole
            _print_pair(row.set, f"{meaning}, of the first {row.images} images" if part else meaning)
    if others := sum(read_row(result) is None for result in about.results):
        notify(f"{others} of the stored results are no evaluations, so they are left out")


def print_experts(experts: ExpertFile) -> None:
    """Print the content of a file of experts."""
    metadata, records = experts.metadata, experts.training
    recipe, labelled = metadata.recipe, is_labelled(metadata.classes)
    low, high = (100 * pick(record.accuracy for record in records) for pick in (min, max))
    machines = dict.fromkeys(record.machine for record in records)
    size = f"{metadata.layout.sizes[0]} parameters, {byte_size(metadata.expert_bytes)}"
    shape = "x".join(map(str, (metadata.channels, metadata.size, metadata.size)))
    rows = [
        ("file", f"{experts.path}, structure verified, {byte_size(experts.path.stat().st_size)}"),
        ("experts", f"{experts.count} of {metadata.network} ({size} each)"),
        ("kept epochs", ranges(experts.epochs)),
        *([(_accuracy_words(experts), f"{low:.2f} to {high:.2f} % on training images")] if labelled else []),
        *_accuracy_rows(experts),
        *([("EL2N", "of every training image")] if experts.has_el2n else []),
        ("images", shape),
        ("classes", listing(metadata.classes) if labelled else "none, trained without labels"),
        ("preprocess", metadata.preprocess.kind),
        ("created", max(record.created for record in records)),
        ("dataset", metadata.dataset),
        ("fingerprint", metadata.fingerprint),
        ("machine", "; ".join(machines)),
        *([("recipe", Path(recipe).stem)] if recipe else []),
        ("seconds", clock(sum(record.seconds for record in records))),
        ("seed", str(metadata.seed)),
    ]
    print_pairs(rows)


def _accuracy_words(experts: ExpertFile) -> str:
    """Say whose accuracy the file states: that of networks, or of linear probes of their features."""
    return "linear-probe accuracy" if experts.metadata.self_supervised else "accuracy"


_LISTED_EPOCHS = 10  # with accuracies on images that no step saw
_UNSEEN = {"test_accuracy": "test images", "validation_accuracy": "training images held out"}
"""These images, by the field of a training record."""


def _accuracy_rows(experts: ExpertFile) -> list[tuple[str, str]]:
    """Return the rows of accuracies on images that no step saw: means over experts, by epoch."""
    rows = []
    for name in _UNSEEN:
        columns = list(zip(*(getattr(record, name) for record in experts.training), strict=True))
        last, step = len(columns) - 1, max(1, -(-len(columns) // _LISTED_EPOCHS))
        listed = [
            f"{experts.epochs[place]}: {100 * sum(columns[place]) / experts.count:.2f} %"
            for place in sorted(range(last, -1, -step))
        ]
        if listed:
            rows.append((name.replace("_", " "), f"after epoch {', '.join(listed)}"))
    return rows


def _decoded_rows(about: Description) -> list[tuple[str, str]]:
    """Return the row of a multi-formation or of compensators, if the set has any."""
    if about.compensators:
        how = f"{about.compensators} compensators, each added to an image of every class"
        return [("decoded", f"into {sum(about.decoded_counts)} training images ({how})")]
    multi_formation = about.multi_formation
    if multi_formation.is_identity:
        return []
    mode = f"factor {multi_formation.factor}, {multi_formation.mode}"
    return [("decoded", f"into {sum(about.decoded_counts)} training images ({mode})")]


def print_text(text: str) -> None:
    """Print a text of several lines."""
    out.print(plain_lines(text.rstrip("\n")), highlight=False)


def print_pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and descriptions in two columns. Lines are not wrapped, so that paths can be copied."""
    pairs = [(plain(name, _NAME), meaning) for name, meaning in rows]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, meaning in pairs:
        _print_pair(f"{name:<{width}}  ", meaning)


def _print_pair(name: str, meaning: str) -> None:
    line = Text(plain(name), style="bold")
    out.print(line.append(plain(meaning, _SENTENCE), style="not bold"))


def _quantity(name: str, value: Any) -> str:
    """Write the value of an attribute, with the unit that its name implies."""
    if isinstance(value, str):
        return value
    if name.endswith("_bytes"):
        return byte_size(value)
    return clock(float(value)) if name == "seconds" else str(value)
