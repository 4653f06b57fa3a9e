"""Where benchmarks write, what each record says of its making, and how tables write figures and dates."""

from __future__ import annotations

import datetime
import json
import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from dsdistill.runtime import provenance

ROOT = Path(__file__).resolve().parent.parent
ARTIFACTS, RUNS = ROOT / "artifacts", ROOT / "runs"
SUITES = Path(__file__).resolve().parent / "suites"


def speed_record(what: str) -> Path:
    """Return the file of measured seconds, "speed-WHAT.json"; those of a CPU with AMX have one of their own.

    On these, bfloat16 gains several times what it does on others.
    """
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)  # torch has none in public
    return ARTIFACTS / f"speed-{what}{'-amx' if has_tiles and has_tiles() else ''}.json"


def spread(values: Sequence[float], sign: str = "") -> str:
    """Write mean ± sample standard deviation, 0 for one value; with ``sign`` "+" the mean has a sign."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{sign}.2f} ± {std:.2f}"


def date_range(dates: Iterable[str]) -> str:
    """Write the first and the last day of ISO 8601 dates."""
    days = sorted({date[:10] for date in dates})
    return " to ".join(dict.fromkeys([days[0], days[-1]]))


def write_record(file: Path, rows: Sequence[Any], **about: Any) -> None:
    """Write what the running script has measured as JSON, with its command line, date, machine and code.

    Args:
        about: what else is to be known of the rows.
    """
    script = Path(sys.argv[0]).name
    record = {
        "command": shlex.join(["python", f"benchmarks/{script}", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "machine": provenance.machine_name(torch.device("cpu")),
        **about,
        "packages": provenance.package_versions(),
        "code": provenance.code_digest(),
        "rows": rows,
    }
    file.write_text(json.dumps(record, indent=1) + "\n")
