"""How much memory the variants of benchmarks/variants.py take above the idle process, one process each.

    python benchmarks/memory.py gradient   a DSA image update over all classes: Fashion-MNIST, ConvNet-3
    python benchmarks/memory.py dm         a DM iteration; datadam, idm, ncfm, kernel and recovery as well
    python benchmarks/memory.py trajectory MTT iterations of 5 to 40 steps, ours and unrolled

Idle is the resident memory with data loaded and everything imported, before the first iteration, and with
what loading left free given back: kept, an iteration would use it without being seen to. "peak" is the most
it ever rises above that, compiling included; "steady" the most in iterations after the first, as the kernel
counts it (VmHWM). Written to artifacts/memory-<what>.json. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import multiprocessing as mp
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import variants
from benchmarks.common import write_record
from benchmarks.speed import compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "what", choices=["dm", "gradient", "datadam", "idm", "ncfm", "kernel", "recovery", "trajectory"]
    )
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--ipc", type=int, default=10)
    args = parser.parse_args()
    rows = []
    compared_variants = _steps(args.ipc) if args.what == "trajectory" else compared(args.what, args.ipc)
    for name, prepare in compared_variants.items():
        ours, theirs = mp.get_context("spawn").Pipe()
        process = mp.get_context("spawn").Process(target=measure, args=(prepare, args.iterations, theirs))
        process.start()
        rows.append({"way": name, **ours.recv()})
        process.join()
        plain = rows[0]
        shares = {key: rows[-1][f"{key}_mb"] / plain[f"{key}_mb"] for key in ("peak", "steady")}
        texts = [f"{key} {rows[-1][f'{key}_mb']:5.0f} MB above idle ({shares[key]:.2f})" for key in shares]
        print(f"{name:24s} {', '.join(texts)}, idle {rows[-1]['idle_mb']:.0f} MB", flush=True)
    ipc = f"-ipc{args.ipc}" if args.ipc != 10 else ""
    file = ROOT / "artifacts" / f"memory-{args.what}{ipc}.json"
    write_record(file, rows)


def _steps(ipc: int) -> dict[str, variants.Variant]:
    """Return the variants at several numbers of steps, those that are compared at 20 first."""
    by_name: dict[str, variants.Variant] = {}
    for steps in (20, 5, 10):
        by_name[f"unrolled, T = {steps}"] = functools.partial(variants.plain_trajectory, ipc, steps)
    for steps in (5, 10, 20, 40):
        by_name[f"exact, T = {steps}"] = functools.partial(
            variants.ours_trajectory, ipc, steps, "exact", True
        )
    by_name["truncated, T = 20"] = functools.partial(variants.ours_trajectory, ipc, 20, "truncated", True)
    return by_name


def measure(prepare: variants.Variant, iterations: int, pipe: Connection) -> None:
    """Run a variant and send the memory that it took."""
    work = prepare()
    idle = trimmed()
    forget_peak()
    work()
    first = resident("VmHWM")
    forget_peak()
    for _ in range(iterations):
        work()
    later = resident("VmHWM")
    sizes: dict[str, Any] = {"idle_mb": idle, "peak_mb": max(first, later) - idle, "steady_mb": later - idle}
    pipe.send(sizes | {"iterations": iterations + 1})


def trimmed() -> float:
    """Give back what is free to the system, and return the resident memory that is left, in MB."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident("VmRSS")


def load_libraries() -> None:
    """Have what computes and what steps be loaded now, which the first use of each would do."""
    F.conv2d(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 3, 3))
    torch.optim.SGD([torch.zeros(1)], 0.1)  # imports much


def keep_resident() -> None:
    """Keep in memory whatever is there now or comes later: else the kernel may take cold pages away.

    Where a process may not do so, nothing happens: measure on a machine that does nothing else.
    """
    ctypes.CDLL(None).mlockall(_ALL_TOUCHED)


_ALL_TOUCHED = 1 | 2 | 4
"""MCL_CURRENT, MCL_FUTURE and MCL_ONFAULT: pages that are never touched take no memory."""


def resident(field: str) -> float:
    """Read the resident memory, VmRSS, or its peak, VmHWM, from /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


def forget_peak() -> None:
    """Let the peak begin anew at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
