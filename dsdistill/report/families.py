"""Families, the lines to compare with one another, and what all rows of a table share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dsdistill.bench.lines import REGIME_ORDER, Line
from dsdistill.bench.results import CellResult

Place = tuple[str, str]
"""A suite and a data set."""


@dataclass(frozen=True)
class Family:
    """Methods and real images at one data set, IPC, student and regime of labels.

    Attributes:
        lines: the most accurate first; without those that only scores need.
    """

    suite: str
    dataset: str
    ipc: int
    network: str
    regime: str
    lines: tuple[Line, ...]

    @property
    def place(self) -> Place:
        """Its suite and data set."""
        return self.suite, self.dataset

    @property
    def first(self) -> bool:
        """Whether the student is the first of an evaluation."""
        return any(line.first for line in self.lines)


def families(lines: Iterable[Line]) -> list[Family]:
    """Return the families of lines: by suite, data set and IPC, first students first, then by regime."""
    groups: dict[tuple[str, str, int, str, str], list[Line]] = {}
    for line in lines:
        if not line.for_scores:
            key = line.suite, line.dataset, line.ipc, line.network, line.regime
            groups.setdefault(key, []).append(line)
    ordered = [
        Family(*key, tuple(sorted(group, key=lambda line: -line.mean))) for key, group in groups.items()
    ]
    return sorted(
        ordered,
        key=lambda each: (*each.place, each.ipc, not each.first, REGIME_ORDER.index(each.regime)),
    )


def by_place(lines: Iterable[Line]) -> dict[Place, list[Family]]:
    """Return the families of each suite and data set."""
    groups: dict[Place, list[Family]] = {}
    for family in families(lines):
        groups.setdefault(family.place, []).append(family)
    return groups


def places(items: Iterable[Line | CellResult]) -> dict[Place, str]:
    """Name every suite and data set: by the data set alone where there is one suite."""
    each = dict.fromkeys((item.suite, item.dataset) for item in items)
    several = len({suite for suite, _ in each}) > 1
    return {(suite, dataset): f"{dataset} ({suite})" if several else dataset for suite, dataset in each}


def at(place: str, ipc: int) -> str:
    """Name a data set and IPC."""
    return f"{place}, {per_class(ipc)}"


def per_class(ipc: int) -> str:
    """Name an IPC."""
    return f"{ipc} per class"


def titled(group: Sequence[Family]) -> list[tuple[str, Family]]:
    """Name families by what differs between them: the IPC, and student and labels if there are several."""
    students, regimes = (len({getattr(each, key) for each in group}) > 1 for key in ("network", "regime"))
    names = [
        per_class(each.ipc)
        + (f", student {each.network}" if students else "")
        + (f", labels {each.regime}" if regimes else "")
        for each in group
    ]
    return list(zip(names, group, strict=True))


def labels(family: Family) -> list[str]:
    """Name the lines of a family: by the method, and the protocol and epochs where two share a method."""
    names = [line.method for line in family.lines]
    return [
        f"{line.method} ({line.protocol}, {line.epochs} epochs)" if names.count(line.method) > 1 else name
        for line, name in zip(family.lines, names, strict=True)
    ]


@dataclass(frozen=True)
class Column:
    """A column of a table of lines.

    Attributes:
        text: what a line has there.
        of_sets: whether it is of distilled sets, and real images have nothing there.
        foldable: whether the caption may say it instead, if all rows have the same.
    """

    name: str
    text: Callable[[Line], str]
    number: bool = True
    of_sets: bool = False
    foldable: bool = True

    def values(self, lines: Iterable[Line]) -> set[str]:
        """Return the different texts of the lines that it is about."""
        return {self.text(line) for line in lines if not (self.of_sets and line.baseline)}


COLUMNS = (
    Column("distilled in", lambda line: line.spent, of_sets=True),
    Column("iterations", lambda line: line.iterations, of_sets=True),
    Column("labels", lambda line: line.regime, number=False),
    Column("student", lambda line: line.network, number=False),
    Column("protocol", lambda line: line.protocol, number=False),
    Column("epochs", lambda line: str(line.epochs)),
    Column("students", lambda line: line.over),
    Column("seed", lambda line: ", ".join(dict.fromkeys(str(each.seed) for each in line.cells))),
)
"""How lines came about."""


def fold(columns: Iterable[Column], lines: Sequence[Line]) -> tuple[list[Column], str]:
    """Tell the columns that differ between lines from what all lines share.

    Returns:
        the columns to show; and a sentence on the others, empty where there is none.
    """
    shown, shared = [], []
    for column in columns:
        values = column.values(lines)
        if values <= {""}:
            continue
        if column.foldable and len(values) == 1:
            shared.append(f"{column.name} {values.pop()}")
        else:
            shown.append(column)
    return shown, f"The same in all rows: {', '.join(shared)}." if shared else ""
