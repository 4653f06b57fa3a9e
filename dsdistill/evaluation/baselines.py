"""What a distilled set has to beat: as many real images a class as it stores, under the same protocol."""

from __future__ import annotations

from torch import Tensor

from dsdistill import selection
from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import RealDataset
from dsdistill.errors import unknown
from dsdistill.seeding import generator


def baseline(
    name: str, real: RealDataset, counts: Tensor, preprocess: Preprocess, seed: int, repeat: int
) -> tuple[Tensor, Tensor]:
    """Return a baseline's training set for one student.

    A random baseline is drawn afresh for every repeat, so that its spread covers the selection as well as the
    student's initial weights.

    Args:
        name: one of ``baseline_names()``.
        counts: int64 [K], images of each class, as many as the distilled set stores.
        preprocess: that of the distilled set.

    Returns:
        images float32 [N,C,H,W] in network space and labels int64 [N], class-major, on the CPU.

    Raises:
        UserError: as the selection does.
    """
    chosen = selection.SELECTIONS[name](real, counts, generator(seed, f"baseline/{name}", repeat))
    return preprocess(real.unit(chosen)), real.labels[chosen]


def baseline_names() -> list[str]:
    """Return the baselines there are."""
    return sorted(selection.SELECTIONS)


def check(name: str) -> None:
    """Raise a UserError, with the nearest name, unless ``name`` is a baseline."""
    if name not in selection.SELECTIONS:
        raise unknown("baseline", name, baseline_names())
