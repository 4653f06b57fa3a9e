"""What the images of methods are worth beyond their labels: sentences below tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dsdistill.bench.comparison import Verdict, random_images, verdict
from dsdistill.bench.lines import Line
from dsdistill.evaluation.rows import STEPS

NOTE = (
    "Whose images beat as many random real images with the same labels: means differ by more than both "
    "standard deviations. Accuracies are compared within one regime of labels alone: HL, hard; SL, stored "
    "soft labels; SL+KD, a teacher that labels every batch."
)


def sentences(lines: Sequence[Line]) -> list[str]:
    """Say for every data set, IPC, student and regime whose images beat random ones with the same labels.

    Methods that are not compared with any are named as well.
    """
    groups: dict[tuple[str, str, int, str, str], list[Line]] = {}
    for line in lines:
        if not line.for_scores:
            place = line.suite, line.dataset, line.ipc, line.network, line.regime
            groups.setdefault(place, []).append(line)
    suites = {line.suite for line in lines}
    return [
        f"{dataset}{f' ({suite})' if len(suites) > 1 else ''}, {ipc} per class, student {network}, labels "
        f"{regime}: {'; '.join(parts)}."
        for (suite, dataset, ipc, network, regime), here in groups.items()
        if (parts := list(_parts(here)))
    ]


def _parts(here: Sequence[Line]) -> Iterator[str]:
    """Yield what is to be said of the methods of one regime."""
    kinds: dict[Verdict, list[str]] = {each: [] for each in Verdict}
    alone = []
    for line in here:
        if line.baseline:
            continue
        random = random_images(line, here)
        if random is None:
            alone.append(line.method)
            continue
        how = " in as many steps" if STEPS in random.set else ""
        compared = f"{line.method} ({line.accuracy} against {random.accuracy}{how})"
        kinds[verdict(line, random)].append(compared)
    ahead, single = kinds[Verdict.AHEAD], kinds[Verdict.UNKNOWN]
    others = kinds[Verdict.LEVEL] + kinds[Verdict.BEHIND]
    if ahead:
        yield f"the images of {', '.join(ahead)} beat random images with the same labels"
    if others:
        short = f"those of {', '.join(others)} do not"
        yield (
            short
            if ahead
            else f"{short.replace('those', 'the images')} beat random images with the same labels"
        )
    if single:
        yield f"one student leaves it open for {', '.join(single)}"
    if alone:
        yield f"no random images with the same labels were evaluated for {', '.join(alone)}"
