"""The memory of a process that is its own, not pages of files, at its highest while something is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.helpers.processes import ROOT

_SCRIPT = """
import json, sys, threading, time
import dsdistill
from dsdistill.data import mapped
from dsdistill.evaluation import accuracy, images
from dsdistill.experts import images as of_experts

mapped.IN_MEMORY = images.RESIDENT_BYTES = accuracy._RESIDENT_BYTES = of_experts._RESIDENT_BYTES = 1 << 22
mapped.BLOCK = 1 << 20

def own():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

highest = 0

def watch():
    global highest
    while True:
        highest = max(highest, own())
        time.sleep(0.01)

threading.Thread(target=watch, daemon=True).start()
peaks = {}

def peak_of(name, call):
    global highest
    highest = 0
    call()
    peaks[name] = max(highest, own())

folder, dataset = sys.argv[1:3]
plain = ["compute.threads=1", "compute.compile=false", "compute.precision=fp32"]
quick = {"overrides": plain, "overwrite": True}
"""
_END = "\nprint(json.dumps(peaks))\n"


def write_images(path: Path, count: int, size: int = 64, classes: int = 10) -> str:
    """Write grey images of random levels, and a quarter as many of test; return the name of the data."""
    levels = np.random.default_rng(0).integers(0, 256, (count, 3, 1, 1), dtype=np.uint8)
    images = np.broadcast_to(levels, (count, 3, size, size))
    labels = np.arange(count) % classes
    few = count // 4
    np.savez(path, x_train=images, y_train=labels, x_test=images[:few], y_test=labels[:few])
    return f"npz:{path}"


def peaks(folder: Path, dataset: str, calls: str) -> dict[str, int]:
    """Make calls in a process where whatever may be kept in memory is small.

    Args:
        folder: where they write: ``folder`` of the calls.
        dataset: as they take it.
        calls: lines of Python, as ``peak_of("name", lambda: dsdistill.…)``.

    Returns:
        the highest number of bytes while each was made.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"DSDISTILL_CACHE": str(folder / "cache"), "PYTHONWARNINGS": "ignore"}
    environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}  # what is freed is given back
    command = [sys.executable, "-c", _SCRIPT + calls + _END, str(folder), dataset]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return result
