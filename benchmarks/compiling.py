"""What compiling a run costs: the first time on a machine, and again with its code on disk.

    python benchmarks/compiling.py

Each run distils the digits for two iterations with networks of the usual width, in a process of its own:
without the compiler, compiled with an empty folder of code, and compiled again with what that left. The three
follow one another, several times. Medians of the seconds that compiling adds to a run go to
artifacts/compiling.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.common import ARTIFACTS, write_record

METHODS = ("dm", "mmd", "datadam", "dsa")
FILE = ARTIFACTS / "compiling.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    rows = []
    for method in args.methods.split(","):
        row = measured(method, args.repeats)
        print(f"{method:>10}: {row['first']:.1f} s the first time, {row['again']:.1f} s again", flush=True)
        rows.append(row)
    write_record(FILE, rows, network="convnet3", ipc=10, iterations=2)


def measured(method: str, repeats: int) -> dict[str, Any]:
    """Return the medians of the seconds that compiling adds to a run of a method."""
    first, again = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            plain = seconds(method, Path(folder), compile=False)
            first.append(seconds(method, Path(folder), compile=True) - plain)
            again.append(seconds(method, Path(folder), compile=True) - plain)
    return {
        "method": method,
        "first": round(statistics.median(first), 2),
        "again": round(statistics.median(again), 2),
        "all": {"first": [round(each, 2) for each in first], "again": [round(each, 2) for each in again]},
    }


def seconds(method: str, folder: Path, compile: bool) -> float:
    """Time a run of two iterations as a process; the folder keeps its compiled code."""
    words = ["distill", "--dataset", "digits", "--method", method, "--ipc", "10", "--network", "convnet3"]
    words += ["--iterations", "2", "--set", f"compute.compile={str(compile).lower()}"]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "code"),
        "DSDISTILL_CACHE": str(folder / "cache"),
    }
    since = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "dsdistill", *words, "-o", str(folder / "set.h5"), "--overwrite", "--quiet"],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.monotonic() - since


if __name__ == "__main__":
    main()
