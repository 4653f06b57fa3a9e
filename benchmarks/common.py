"""Where benchmarks write, and how their tables write figures and dates."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARTIFACTS, RUNS = ROOT / "artifacts", ROOT / "runs"
SUITES = Path(__file__).resolve().parent / "suites"


def spread(values: Sequence[float], sign: str = "") -> str:
    """Write mean ± sample standard deviation, 0 for one value; with ``sign`` "+" the mean has a sign."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{sign}.2f} ± {std:.2f}"


def date_range(dates: Iterable[str]) -> str:
    """Write the first and the last day of ISO 8601 dates."""
    days = sorted({date[:10] for date in dates})
    return " to ".join(dict.fromkeys([days[0], days[-1]]))
