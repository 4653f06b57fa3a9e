"""What it costs how OpenMP's threads wait for one another, on a free machine and beside other work.

    python benchmarks/waiting.py          on a machine that does nothing else
    python benchmarks/waiting.py --busy   with a neighbour that keeps one core busy

Each way distils random images of Fashion-MNIST's size with DM, uncompiled, on two threads, for a number of
iterations in a process of its own; the ways take turns. One thread, which waits for nobody, is measured too.
Medians and paired ratios to torch's default are printed and go to artifacts/waiting.json, or to
artifacts/waiting-busy.json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks.alternate import report
from benchmarks.common import ARTIFACTS, write_record

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
WAYS: dict[str, tuple[int, dict[str, str]]] = {
    "default, 2 threads": (2, {}),
    "active, 2 threads": (2, {"OMP_WAIT_POLICY": "ACTIVE"}),
    "passive, 2 threads": (2, {"OMP_WAIT_POLICY": "PASSIVE"}),
    "1,000 spins, 2 threads": (2, {"GOMP_SPINCOUNT": "1000"}),
    "10,000 spins, 2 threads": (2, {"GOMP_SPINCOUNT": "10000"}),
    "1 thread": (1, {}),
}
"""Threads and environment by name, the default first."""

_RUN = """
import json, sys
import dsdistill
from dsdistill.runtime.device import quiet_allocator

quiet_allocator()
data, output, iterations, threads = sys.argv[1:]
summary = dsdistill.distill(
    output, dataset=f"npz:{data}", method="dm", ipc=10, network="convnet3", iterations=int(iterations),
    device="cpu", overrides=[f"compute.threads={threads}", "compute.compile=false", "engine.batch_real=64"],
    overwrite=True,
)
print(summary.seconds / summary.iterations)
"""


def seconds_per_iteration(data: Path, iterations: int, threads: int, environment: dict[str, str]) -> float:
    """Distil in a process with an environment and return the seconds of an iteration."""
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    variables = inherited | {"PYTHONPATH": str(ROOT)} | environment
    words = [str(data), str(data.with_name("set.h5")), str(iterations), str(threads)]
    command = [sys.executable, "-c", _RUN, *words]
    return float(subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout)


def write_images(path: Path) -> None:
    """Write random images of Fashion-MNIST's size, 300 in each of ten classes."""
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (3000, 28, 28), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(3000) % 10)


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep so many cores busy inside this context."""
    program = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"  # ends with its parent
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(rounds: int, iterations: int, busy: int) -> list[dict[str, Any]]:
    """Time every way once a round, and return a row for each."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder, neighbours(busy):
        data = Path(folder) / "images.npz"
        write_images(data)
        for _ in range(rounds):
            for name, way in WAYS.items():
                seconds[name].append(seconds_per_iteration(data, iterations, *way))
    return report(seconds, next(iter(WAYS)), "iteration")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--busy", action="store_true", help="beside a process that keeps one core busy")
    args = parser.parse_args()
    load = os.getloadavg()[0]  # above about 0.5 something else was running
    rows = measure(args.rounds, args.iterations, int(args.busy))
    file = ARTIFACTS / f"waiting{'-busy' * args.busy}.json"
    write_record(file, rows, cores=os.cpu_count(), load_before=load)


if __name__ == "__main__":
    main()
