"""Accuracies that papers printed, with where each was read (``published.toml``)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from dsdistill.evaluation.rows import FULL, canonical
from dsdistill.files import parse_toml

_SAME_METHOD = {"datadam-paper": "datadam", "ncfm-minmax": "ncfm"}
"""Recipes that are another reading of the same paper."""

NOTE = (
    "Published values are under their own protocols. These differ from ours and from one another in "
    "students, augmentation, labels and in which epoch counts: read them for orientation."
)


@dataclass(frozen=True)
class Published:
    """One printed accuracy, in percent."""

    dataset: str
    method: str
    ipc: int
    """Images per class; 0 for the full training set."""
    mean: float
    std: float | None
    source: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.std is None else f"{self.mean:.1f} ± {self.std:.1f}"


def find(dataset: str, method: str, ipc: int) -> Published | None:
    """Return what was published for exactly this data set, method (or baseline) and IPC, or None."""
    method = canonical(method)
    return _known().get((dataset, _SAME_METHOD.get(method, method), 0 if method == FULL else ipc))


@functools.cache
def _known() -> dict[tuple[str, str, int], Published]:
    return {(each.dataset, each.method, each.ipc): each for each in every()}


def every() -> Iterator[Published]:
    """Yield all that is known."""
    text = (resources.files("dsdistill") / "presets" / "published.toml").read_text(encoding="utf-8")
    table = parse_toml(text)
    sources = table.pop("sources")
    for dataset, methods in table.items():
        for method, rows in methods.items():
            for row in rows:
                source, note = sources[row["source"]], row.get("note", "")
                for ipc, printed in row.items():
                    if ipc in ("source", "note"):
                        continue
                    mean, _, std = printed.partition("±")
                    images = 0 if ipc == "all" else int(ipc)
                    spread = float(std) if std else None
                    yield Published(dataset, canonical(method), images, float(mean), spread, source, note)
