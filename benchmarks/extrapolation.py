"""ImageNet-1K on eight processes: an extrapolation from a few classes on one core of this machine.

    python benchmarks/extrapolation.py                      DM at 64 pixels and SRe2L at 224
    python benchmarks/extrapolation.py --times 500 --bandwidth 2e11
                                                            for devices 500 times as fast as this core
    python benchmarks/extrapolation.py --quick              small images: whether it works; writes nothing

The seconds of an iteration are measured with one, two and four classes of noise in ImageNet's size, ten
synthetic images each, with one thread, uncompiled, in the precision that this machine chooses, and a line is
fitted to them. The work on K classes has P parts that nothing divides: the classes of DM, the batches of a
hundred images that SRe2L recovers. Of R processes each has at most ⌈P / R⌉ of them, and adds up the gradient
of all pixels with the others:

    seconds = (fixed + each · K / P · ⌈P / R⌉) / times + 2 (R - 1) / R · bytes / bandwidth

Bytes are four for each number of the synthetic images. Two things are left out: every process takes the step
of all pixels, which the line counts as if it were divided; and a batch of a hundred images takes less than
ten of ten, which were measured. ``times`` is how many times as fast as this core a
process is, and the bandwidth that of its network: assumptions, unless this is their machine. Between two
processes of this machine the bandwidth is measured. Nobody has run what these figures are about. They go to
artifacts/extrapolation.json.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.common import ARTIFACTS, write_record
from benchmarks.cost_scaling import Fit, assembled, fitted, generated
from benchmarks.memory_estimates import in_process
from dsdistill.runtime.device import full_float32, quiet_allocator, resolve_precision
from dsdistill.text import byte_size, duration

CLASSES = 1000
IPC = 10
MEASURED = (1, 2, 4)
RANKS = (1, 2, 8)
ITERATIONS = {"dm": 20_000, "sre2l": 1000}
"""Of a whole run: DM's published ones; SRe2L's are ours, a quarter of those for ImageNet-1K."""

_ALL_REDUCE = """
import sys, time, torch
from torch import distributed
distributed.init_process_group("gloo")
numbers = torch.zeros(int(sys.argv[1]) // 4)
distributed.all_reduce(numbers)
since = time.perf_counter()
for _ in range(5):
    distributed.all_reduce(numbers)
if distributed.get_rank() == 0:
    print((time.perf_counter() - since) / 5)
distributed.destroy_process_group()
"""


@dataclass(frozen=True)
class Work:
    """A method on images of one size.

    Attributes:
        method: its name. options: over its recipe.
        size: side of an image with three channels, in pixels.
        per_class: real images of a class, from which those of an iteration are drawn.
        parts: of an iteration on ImageNet-1K, none of which is divided.
    """

    method: str
    options: Mapping[str, Any]
    size: int
    per_class: int
    parts: int = CLASSES

    @property
    def pixel_bytes(self) -> int:
        """Bytes of the gradient of all synthetic images of ImageNet-1K."""
        return 4 * CLASSES * IPC * 3 * self.size**2


WORKS = (
    Work("dm", {"network": "convnet4"}, 64, 256),
    Work("sre2l", {"network": "resnet18-batch"}, 224, 16, CLASSES * IPC // 100),
)
QUICK = (Work("dm", {"network": "convnet2-w4", "engine": {"batch_real": 4}}, 16, 16),)


def seconds_of(work: Work, classes: int, rounds: int) -> float:
    """Return the median seconds of an iteration with so many classes, on one thread."""
    torch.set_num_threads(1)
    quiet_allocator()
    task, real = generated(classes, work.per_class, 3, work.size)
    options = {"method": work.method, "ipc": IPC, "compute": {"compile": False}, **work.options}
    with tempfile.TemporaryDirectory() as folder, full_float32():
        loop = assembled(options, task, real, Path(folder))
        loop.step()
        seconds = []
        for _ in range(rounds):
            since = time.perf_counter()
            loop.step()
            seconds.append(time.perf_counter() - since)
    return statistics.median(seconds)


def bandwidth_here(size: int = 1 << 26) -> float:
    """Return the bytes a second that two processes of this machine add up, by the formula above."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "reduce.py"
        script.write_text(_ALL_REDUCE)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run([*launcher, str(script), str(size)], capture_output=True, text=True, check=True)
    return size / float(done.stdout.split()[-1])


def iteration_seconds(line: Fit, work: Work, ranks: int, times: float, bandwidth: float) -> float:
    """Return the seconds of an iteration of ImageNet-1K; see the module.

    Args:
        line: seconds by classes on one core.
        times: how many times as fast as that core each process is.
        bandwidth: bytes a second between them.
    """
    classes = CLASSES / work.parts * math.ceil(work.parts / ranks)
    computing = (line.fixed + line.each * classes) / times
    return computing + 2 * (ranks - 1) / ranks * work.pixel_bytes / bandwidth


def rows_of(
    work: Work, line: Fit, places: Mapping[str, tuple[float, float]], ranks: Sequence[int] = RANKS
) -> list[dict[str, Any]]:
    """Return a row for each kind of processes and their number, and print it.

    Args:
        places: how many times as fast as this core a process is, and the bandwidth, by name.
    """
    rows = []
    for place, (times, bandwidth) in places.items():
        alone = iteration_seconds(line, work, 1, times, bandwidth)
        for count in ranks:
            seconds = iteration_seconds(line, work, count, times, bandwidth)
            run = seconds * ITERATIONS[work.method]
            share = alone / (count * seconds)
            about = {"method": work.method, "size": work.size, "place": place, "processes": count}
            rows.append({**about, "seconds": seconds, "run_seconds": run, "efficiency": share})
            print(
                f"{work.method:6s} {work.size:3d} px, {count} x {place}: {seconds:10.4g} s an iteration, "
                f"{duration(run)} in all, efficiency {100 * share:.0f} %",
                flush=True,
            )
    return rows


def main() -> None:
    """Measure and extrapolate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=float, default=500.0, help="a GPU's speed, in these cores (assumed)")
    parser.add_argument("--bandwidth", type=float, default=1e11, help="between GPUs, in bytes/s (assumed)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    here = bandwidth_here(1 << 20 if args.quick else 1 << 26)
    print(f"two processes of this machine add up {byte_size(round(here))} a second")
    places = {"a core like this one": (1.0, here), "a GPU (assumed)": (args.times, args.bandwidth)}
    rows, lines = [], []
    for work in QUICK if args.quick else WORKS:
        seconds = [in_process(seconds_of, work, classes, args.rounds) for classes in MEASURED]
        line = fitted(MEASURED, seconds)
        lines.append({"method": work.method, "size": work.size, "measured": seconds, **asdict(line)})
        print(
            f"{work.method:6s} {line.fixed:.4g} s + {line.each:.4g} s x classes, within "
            f"{100 * line.largest_deviation:.0f} %; {byte_size(work.pixel_bytes)} added up an iteration"
        )
        rows += rows_of(work, line, places)
    if not args.quick:
        assumed = {"times": args.times, "bandwidth": args.bandwidth}
        write_record(
            ARTIFACTS / "extrapolation.json",
            rows,
            precision=resolve_precision("auto", torch.device("cpu")),
            measured_bandwidth=here,
            assumed=assumed,
            lines=lines,
        )


if __name__ == "__main__":
    main()
