"""Which images are best within the bytes of a set, where sets were also encoded in fewer bits: sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dsdistill.bench.lines import Line
from dsdistill.report import families
from dsdistill.report.conclusion import stands
from dsdistill.report.dots import Kind
from dsdistill.report.figures import kind
from dsdistill.text import kilobytes

_ROUNDED = 1.01
"""By how much the bytes of real images, a mean times their number, may seem to exceed those of a set."""


def sentences(lines: Sequence[Line]) -> list[str]:
    """Say for every data set and IPC what is best in the bytes of its sets as they are, by first students.

    Sets of any IPC and number of bits count, encoded copies among them, and real images with the same
    student, protocol and regime of labels. Nothing is said of data sets without copies.
    """
    titles, texts = families.places(lines), []
    first = [line for line in lines if line.first and not line.for_scores]
    places = dict.fromkeys((line.suite, line.dataset, line.regime) for line in first if line.of_copy)
    several = len({regime for *_, regime in places}) > 1
    for suite, dataset, regime in places:
        here = [line for line in first if (line.suite, line.dataset, line.regime) == (suite, dataset, regime)]
        title = titles[suite, dataset] + (f", labels {regime}" if several else "")
        texts += [f"{title}, {sentence}" for sentence in _of_place(here)]
    return texts


def _of_place(here: Sequence[Line]) -> Iterator[str]:
    ours = [line for line in here if kind(line) is Kind.DISTILLED]
    real = [line for line in here if kind(line) in (Kind.REAL, Kind.REAL_BYTES)]
    for ipc in sorted({line.ipc for line in ours}):
        budget = max(line.bytes for line in ours if line.ipc == ipc and not line.of_copy)
        best = _best(ours, budget)
        if best is None:
            continue
        text = f"in the {kilobytes(budget)} kB of {families.per_class(ipc)} as distilled: {_about(best)}"
        others = [line for line in real if (line.network, line.protocol) == (best.network, best.protocol)]
        if other := _best(others, budget):
            text += f" {stands(best, other)} the best real images evaluated here, {_about(other)}"
        yield f"{text}."


def _best(lines: Sequence[Line], budget: float) -> Line | None:
    """Return the most accurate line of those whose bytes are within a budget."""
    fitting = [line for line in lines if line.bytes <= _ROUNDED * budget]
    return max(fitting, key=lambda line: line.mean, default=None)


def _about(line: Line) -> str:
    bits = f"{line.bits} bit{'s' if line.bits > 1 else ''}"
    return f"{line.method} ({line.images:,} images in {bits}, {kilobytes(line.bytes)} kB: {line.accuracy} %)"
