"""What the results say, in sentences: which method is best, whether clearly, and against real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsdistill.bench.comparison import (
    Verdict,
    best_coreset,
    random_images,
    random_images_of_bytes,
    training,
    verdict,
)
from dsdistill.bench.lines import Line
from dsdistill.evaluation.rows import STEPS
from dsdistill.report.families import at, places
from dsdistill.text import kilobytes, listing

NOTE = (
    "One accuracy beats another, or is ahead of it, if their means differ by more than both standard "
    "deviations; otherwise they are level."
)
MIXED = "Methods with different students or protocols are not compared like for like."


@dataclass(frozen=True)
class Tally:
    """How many methods beat real images, of those that can be compared with them."""

    ahead: int
    compared: int


@dataclass(frozen=True)
class Finding:
    """What is to be said of one data set and IPC.

    Attributes:
        random: against as many random real images. bytes: against random real images for the same bytes.
        mixed: whether methods differ in student, protocol or epochs.
        regime: of the labels of all of them.
        students: on which it rests, where there are others; else none.
    """

    title: str
    text: str
    random: Tally
    bytes: Tally
    mixed: bool
    regime: str
    students: tuple[str, ...] = ()


def findings(lines: Sequence[Line]) -> list[Finding]:
    """Say for every data set, IPC and regime of labels what the first students found."""
    first = [line for line in lines if line.first and not line.for_scores]
    titles = places(lines)
    settings: dict[tuple[str, str, int, str], list[Line]] = {}
    for line in first:
        settings.setdefault((line.suite, line.dataset, line.ipc, line.regime), []).append(line)
    settings = {key: here for key, here in settings.items() if not all(line.baseline for line in here)}
    students: dict[tuple[str, str, int], set[str]] = {}
    for line in lines:
        students.setdefault((line.suite, line.dataset, line.ipc), set()).add(line.network)
    several = len({regime for *_, regime in settings}) > 1
    return [
        _finding(
            at(titles[suite, dataset], ipc) + (f", labels {regime}" if several else ""),
            here,
            students[suite, dataset, ipc],
        )
        for (suite, dataset, ipc, regime), here in settings.items()
    ]


def overall(all_findings: Sequence[Finding]) -> str:
    """Say of all findings together how distilled images stand to random real ones."""
    random = [each.random for each in all_findings if each.random.compared]
    equal_bytes = [each.bytes for each in all_findings if each.bytes.compared]
    soft = any(each.regime != "HL" for each in all_findings if each.random.compared)
    parts = [_wins(random, _random("SL" if soft else "HL"))] if random else []
    parts += [_wins(equal_bytes, "random real images for the same bytes")] if equal_bytes else []
    if parts and (students := list(dict.fromkeys(name for each in all_findings for name in each.students))):
        parts[0] = f"with the student{'s' * (len(students) > 1)} {listing(students, most=4)}, {parts[0]}"
    return _sentence(parts) or "No distilled set is compared with random real images by several students."


def _wins(tallies: Sequence[Tally], what: str) -> str:
    ahead, compared = sum(each.ahead for each in tallies), sum(each.compared for each in tallies)
    if not ahead:
        return f"no distilled set beats {what}"
    if compared == 1:
        return f"distilled images beat {what}"
    where = "both" if ahead == compared == 2 else _share(ahead, compared)
    if len(tallies) == 1:
        return f"{where} methods beat {what}"
    return f"distilled images beat {what} in {where} comparisons"


def _finding(title: str, here: Sequence[Line], students: set[str]) -> Finding:
    """Return the finding on the lines of first students.

    Args:
        students: all that were trained at this data set and IPC.
    """
    ours = sorted((line for line in here if not line.baseline), key=lambda line: -line.mean)
    real = [line for line in here if line.baseline]
    random, equal_bytes = (
        [(line, find(line, real)) for line in ours] for find in (random_images, random_images_of_bytes)
    )
    best = ours[0]
    sentences = [
        _lead(ours, _names(ours)),
        _against_random(best, random[0][1], equal_bytes[0][1]),
        _against_coreset(best, best_coreset(best, real)),
        _counts(random, equal_bytes) if len(ours) > 1 else "",
    ]
    mixed = len({training(line) for line in ours}) > 1
    text = " ".join(filter(None, sentences))
    own = tuple(dict.fromkeys(line.network for line in ours))
    others = own if students - set(own) else ()
    return Finding(title, text, _tally(random), _tally(equal_bytes), mixed, best.regime, others)


def _names(ours: Sequence[Line]) -> list[str]:
    """Name methods, with the student and the protocol where these differ."""
    network = len({line.network for line in ours}) > 1
    protocol = len({line.protocol for line in ours}) > 1
    names = []
    for line in ours:
        how = [f"student {line.network}"] * network + [f"protocol {line.protocol}"] * protocol
        names.append(f"{line.method} ({', '.join(how)})" if how else line.method)
    return names


def _lead(ours: Sequence[Line], names: Sequence[str]) -> str:
    """Say which method is best, and whether clearly."""
    best, *others = ours
    if not others:
        return f"{names[0]}, the only method, reaches {best.accuracy} %."
    text = f"{names[0]} is the best of {len(ours)} with {best.accuracy} %"
    second = f"{names[1]} at {others[0].accuracy} %"
    match verdict(best, others[0]):
        case Verdict.AHEAD:
            return f"{text}, ahead of {second}."
        case Verdict.UNKNOWN:
            return f"{text}, before {second}; one student leaves open how far chance goes."
    more = sum(verdict(best, each) is Verdict.LEVEL for each in others) - 1
    return f"{text}, level with {second}{f' and with {more} more' if more else ''}."


def _against_random(best: Line, random: Line | None, equal_bytes: Line | None) -> str:
    """Say how the best method stands to random real images, as many and for the same bytes."""
    parts = []
    if random:
        how = ", trained for as many steps" if STEPS in random.set else ""
        parts.append(f"{stands(best, random)} {_random(best.regime)} ({random.accuracy} %{how})")
    if equal_bytes:
        size = f"{equal_bytes.accuracy} %, {kilobytes(equal_bytes.bytes)} kB"
        parts.append(f"{stands(best, equal_bytes)} random real images for the same bytes ({size})")
    if parts:
        return f"It {', and '.join(parts)}."
    return f"It is not compared with {_random(best.regime).removeprefix('as many ')}."


def _random(regime: str) -> str:
    """Name the random real images that sets of a regime of labels are compared with."""
    return "as many random real images" + ("" if regime == "HL" else " with the same labels")


def stands(one: Line, other: Line) -> str:
    """Say how one accuracy stands to another, as the verb of a sentence."""
    points = one.mean - other.mean
    return {
        Verdict.AHEAD: "beats",
        Verdict.LEVEL: "is level with",
        Verdict.BEHIND: "is behind",
        Verdict.UNKNOWN: f"is by one student {abs(points):.2f} points {'above' if points >= 0 else 'below'}",
    }[verdict(one, other)]


def _against_coreset(best: Line, coreset: Line | None) -> str:
    """Name a selection of real images that the best method does not beat."""
    how = verdict(coreset, best) if coreset else Verdict.UNKNOWN
    if coreset is None or how not in (Verdict.AHEAD, Verdict.LEVEL):
        return ""
    link = "ahead of" if how is Verdict.AHEAD else "level with"
    return f"As many real images chosen by {coreset.set} are {link} it ({coreset.accuracy} %)."


_Pairs = Sequence[tuple[Line, Line | None]]
"""Methods, each with the real images that it is compared with; the best first."""


def _tally(pairs: _Pairs) -> Tally:
    verdicts = [verdict(line, other) for line, other in pairs if other]
    return Tally(verdicts.count(Verdict.AHEAD), len(verdicts) - verdicts.count(Verdict.UNKNOWN))


def _counts(random: _Pairs, equal_bytes: _Pairs) -> str:
    """Say how many of several methods beat random real images."""
    kinds = ((random, _random(random[0][0].regime)), (equal_bytes, "random ones for the same bytes"))
    return _sentence(
        [f"{_beat(_tally(pairs))} {what}{_unsaid(pairs)}" for pairs, what in kinds if _tally(pairs).compared]
    )


def _unsaid(pairs: _Pairs) -> str:
    """Return the accuracy of the real images, if these are one line that the best is not compared with."""
    accuracies = {other.accuracy for _, other in pairs if other}
    return f" ({accuracies.pop()} %)" if pairs[0][1] is None and len(accuracies) == 1 else ""


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _beat(tally: Tally) -> str:
    if not tally.ahead:
        return f"none of {tally.compared} beats"
    return f"{_share(tally.ahead, tally.compared)} beat{'s' if tally.compared == 1 else ''}"


def _share(part: int, count: int) -> str:
    return f"all {count}" if part == count else f"{part} of {count}"
