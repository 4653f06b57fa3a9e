"""How seconds and memory of an iteration grow with classes and with images per class: the constants of lines.

    python benchmarks/cost_scaling.py             DM, NCFM, MTT and SRe2L; a few minutes on one core
    python benchmarks/cost_scaling.py --methods dm,mtt
    python benchmarks/cost_scaling.py --quick     fewer sizes and rounds: whether it works; writes nothing

10, 50 and 200 classes at ten images per class, and 1, 10 and 50 images per class of ten classes, each in a
process of its own with one thread: a ConvNet of two blocks and 16 maps on generated images of 16 pixels,
uncompiled, from stored networks with random weights. Seconds are the median of several iterations; memory is
the peak of resident memory above that before the first one (VmHWM; Linux only). A line is fitted to each,
fixed + each · n, with the least sum of squared relative deviations, so that small sizes count as much as
large ones; the largest deviation is a share of what was measured. Written to artifacts/cost-scaling.json.
"""

from __future__ import annotations

import argparse
import statistics
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

from benchmarks import variants
from benchmarks.common import ARTIFACTS, write_record
from benchmarks.memory import forget_peak, keep_resident, load_libraries, resident, trimmed
from benchmarks.memory_estimates import in_process
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation import assembly
from dsdistill.distillation import config as configs
from dsdistill.distillation.loop import Distiller
from dsdistill.networks import build_network
from dsdistill.networks.layout import Layout
from dsdistill.runtime.device import full_float32, quiet_allocator
from dsdistill.seeding import forked, generator

SEED = 0
SIZE, PER_CLASS = 16, 64
"""Pixels of a generated image's side, and real images of a class."""
CLASSES, IPCS, FIXED = (10, 50, 200), (1, 10, 50), 10
"""What is varied, and what the other of the two is meanwhile."""
EPOCHS = 3
"""Stored ones of an expert, besides its start."""

METHODS: dict[str, dict[str, Any]] = {
    "dm": {"network": "convnet2-w16", "engine": {"batch_real": 32}},
    "ncfm": {"network": "convnet2-w16", "engine": {"batch_real": 32, "discrepancy": {"frequencies": 512}}},
    "mtt": {
        "network": "convnet2-w16",
        "engine": {"steps": 5, "expert_epochs": 2, "start": {"most": 1}, "batch_synthetic": 0},
    },
    "sre2l": {"network": "convnet2-w16-batch"},
}
"""Options by method; MTT's student takes all images in each of its steps."""


@dataclass(frozen=True)
class Fit:
    """A line through what was measured.

    Attributes:
        fixed: where it begins. each: what one more class, or image per class, adds.
        largest_deviation: of a measured value from the line, as a share of that value.
    """

    fixed: float
    each: float
    largest_deviation: float


def fitted(sizes: Sequence[float], values: Sequence[float]) -> Fit:
    """Fit a line with the least sum of squared relative deviations.

    Args:
        sizes: at least two different ones. values: positive.
    """
    measured = torch.tensor(values, dtype=torch.float64)
    columns = torch.stack([torch.ones(len(sizes)).double(), torch.tensor(sizes, dtype=torch.float64)], 1)
    shares = columns / measured[:, None]
    fixed, each = torch.linalg.lstsq(shares, torch.ones(len(sizes), 1).double()).solution.flatten().tolist()
    apart = (columns @ torch.tensor([fixed, each], dtype=torch.float64) / measured - 1).abs().max()
    return Fit(fixed, each, float(apart))


def generated(classes: int, per_class: int, channels: int = 1, size: int = SIZE) -> tuple[Task, RealDataset]:
    """Return a task of noise, with so many real images of each class."""
    names = tuple(f"class {number}" for number in range(classes))
    labels = torch.arange(classes).repeat_interleave(per_class)
    stream = generator(SEED, "generated", classes)
    images = torch.randint(0, 256, (len(labels), channels, size, size), generator=stream).to(torch.uint8)
    scale = Standardise.of((0.5,) * channels, (0.29,) * channels)
    task = Task("generated", names, channels, size, scale, mirror=True)
    return task, RealDataset(task.name, "train", images, labels, names)


def write_experts(path: Path, task: Task, real: RealDataset, network: str) -> None:
    """Write one expert whose weights wander at random: they cost as much as others."""
    with forked(SEED, "networks"):
        built = build_network(network, task.channels, task.size, task.num_classes)
    layout = Layout.of(built)
    weights, buffers = layout.pack(built.state_dict())
    noise = torch.randn(EPOCHS + 1, len(weights), generator=generator(SEED, "walk"))
    walk = [(weights + 0.01 * epoch * noise[epoch], buffers) for epoch in range(EPOCHS + 1)]
    variants.write_experts(path, task, real, layout, [walk], network)


def assembled(options: Mapping[str, Any], task: Task, real: RealDataset, folder: Path) -> Distiller:
    """Return a loop that has not begun, from stored networks with random weights where it needs them.

    Args:
        options: of the distillation, but for its data and seed.
        folder: of the networks.
    """
    config = configs.resolve({"seed": SEED, "data": {"name": "fashion-mnist"}, **options})
    if config.engine.supply.takes_experts:
        path = folder / "experts.h5"
        write_experts(path, task, real, config.network)
        config = configs.resolve(configs.as_table(config), [f"engine.supply.path={path}"])
    return assembly.assemble(config, task, real, variants.DEVICE, print)


def measure(method: str, classes: int, ipc: int, rounds: int) -> dict[str, Any]:
    """Return the seconds and the memory of an iteration."""
    torch.set_num_threads(1)
    quiet_allocator()
    load_libraries()
    task, real = generated(classes, PER_CLASS)
    compute = {"compile": False, "precision": "fp32"}
    options = {"method": method, "ipc": ipc, "compute": compute, **METHODS[method]}
    with tempfile.TemporaryDirectory() as folder, full_float32():
        loop = assembled(options, task, real, Path(folder))
        idle = trimmed()
        keep_resident()
        forget_peak()
        seconds = []
        for _ in range(rounds + 1):
            begin = time.perf_counter()
            loop.step()
            seconds.append(time.perf_counter() - begin)
        peak = resident("VmHWM") - idle
    sizes = {"method": method, "classes": classes, "ipc": ipc}
    return sizes | {"seconds": statistics.median(seconds[1:]), "peak_mb": peak, "iterations": rounds}


def lines_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each method, what is varied, and what grows; and print them."""
    fits = []
    for method in dict.fromkeys(row["method"] for row in rows):
        for varied, other in (("classes", "ipc"), ("ipc", "classes")):
            here = [row for row in rows if row["method"] == method and row[other] == FIXED]
            for quantity, unit in (("seconds", "s"), ("peak_mb", "MB")):
                fit = fitted([row[varied] for row in here], [row[quantity] for row in here])
                fits.append({"method": method, "of": quantity, "by": varied, **asdict(fit)})
                line = f"{fit.fixed:10.4g} {unit} + {fit.each:10.4g} {unit} x {varied}"
                print(f"{method:6s} {quantity:8s} {line}, within {100 * fit.largest_deviation:.0f} %")
    return fits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    classes, ipcs = (CLASSES[:2], IPCS[:2]) if args.quick else (CLASSES, IPCS)
    sizes = dict.fromkeys([*((each, FIXED) for each in classes), *((FIXED, each) for each in ipcs)])
    rows = []
    for method in args.methods.split(","):
        for size in sizes:
            row = in_process(measure, method, *size, 1 if args.quick else args.rounds)
            rows.append(row)
            print(
                f"{method:6s} {size[0]:4d} classes, {size[1]:3d} images each: {row['seconds']:.4g} s, "
                f"{row['peak_mb']:.0f} MB",
                flush=True,
            )
    fits = lines_of(rows)
    if not args.quick:
        write_record(ARTIFACTS / "cost-scaling.json", rows, seed=SEED, size=SIZE, options=METHODS, lines=fits)


if __name__ == "__main__":
    main()
