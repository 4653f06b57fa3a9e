"""Is the estimate of memory right? It and what is measured, for every recipe, one process each.

    python benchmarks/memory_estimates.py            matching recipes at 1, 10 and 50 images per class
    python benchmarks/memory_estimates.py --methods dm,idc --ipcs 10 --compile

Fashion-MNIST, the recipe's ConvNet-3, fp32 on a CPU, uncompiled unless asked for. Measured is the peak of
resident memory in the iterations (VmHWM) above what was resident with everything imported and the data read,
and the data's bytes; what reading left free is given back first, and no page leaves memory afterwards.
Options that cost time and little memory are lower than in the recipe: epochs and steps of training, the real
images whose gradients are matched, and the steps of a student at 10 and 50 images per class. The estimate
knows of it. Experts are those of a few steps, followed from their first epochs. Written to
artifacts/memory-estimates.json after every row; rows of other methods and sizes that are there stay. Linux
only.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import multiprocessing as mp
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import variants
from benchmarks.memory import forget_peak, keep_resident, load_libraries, resident, trimmed
from dsdistill.config.presets import RECIPES
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.distillation import assembly
from dsdistill.distillation import config as configs
from dsdistill.distillation.config import RunConfig
from dsdistill.distillation.memory import estimate
from dsdistill.engines import DecoupledEngine, GradientEngine, TrajectoryEngine
from dsdistill.networks import build_network
from dsdistill.networks.layout import Layout
from dsdistill.runtime import provenance
from dsdistill.runtime.device import full_float32, quiet_allocator
from dsdistill.seeding import generator
from dsdistill.supply import QueueConfig, TrainedConfig
from dsdistill.supply.trajectories import TrajectoriesConfig

DATA = "fashion-mnist"
METHODS = [
    name
    for name in RECIPES.names()
    if not isinstance(
        configs.resolve({"method": name, "ipc": 10, "data": {"name": DATA}}).engine, DecoupledEngine
    )
]
"""Those that match; recovery from a teacher is not measured here."""
ITERATIONS = 6
"""The heap of the C library grows in the first of them."""

STEPS = {10: 10, 50: 4}
"""Steps of a student, by images per class; else the recipe's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--ipcs", default="1,10,50")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "artifacts" / "memory-estimates.json")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if args.output.exists():
        rows = json.loads(args.output.read_text())["rows"]
    with tempfile.TemporaryDirectory() as folder:
        experts = Path(folder) / "experts.h5"
        in_process(train_experts, experts)
        for ipc in map(int, args.ipcs.split(",")):
            for method in args.methods.split(","):
                row = in_process(measure, method, ipc, args.compile, experts)
                key = [row[name] for name in CELL]
                rows = [each for each in rows if [each[name] for name in CELL] != key] + [row]
                print(
                    f"{method:14s}{ipc:3d}  estimate {row['estimate_mb']:6.0f} MB, measured "
                    f"{row['measured_mb']:6.0f} MB, ratio {row['ratio']:.2f}",
                    flush=True,
                )
                args.output.write_text(json.dumps(record(rows), indent=1) + "\n")


CELL = ("method", "ipc", "compile")
"""What tells rows apart."""


def record(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what is written."""
    return {
        "command": "python benchmarks/memory_estimates.py",
        "machine": provenance.machine_name(variants.DEVICE),
        "packages": provenance.package_versions(),
        "rows": sorted(rows, key=lambda row: (row["ipc"], row["method"])),
    }


def in_process(function: Any, *arguments: Any) -> Any:
    """Return what a function returns in a process of its own."""
    ours, theirs = mp.get_context("spawn").Pipe()
    process = mp.get_context("spawn").Process(target=_send, args=(theirs, function, *arguments))
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return result


def _send(pipe: Connection, function: Any, *arguments: Any) -> None:
    pipe.send(function(*arguments))


def train_experts(path: Path, count: int = 2, epochs: int = 3, steps: int = 10) -> None:
    """Write experts of so many steps an epoch: how good they are costs no memory."""
    task, real = catalog.load(DataConfig(name=DATA), "train")
    walks, layouts = [], []
    for expert in range(count):
        network = build_network("convnet", task.channels, task.size, task.num_classes)
        layouts.append(Layout.of(network))
        optimiser = torch.optim.SGD(network.parameters(), 0.01)
        walk = [layouts[-1].pack(network.state_dict())]
        for epoch in range(epochs):
            for step in range(steps):
                rows = torch.randperm(len(real), generator=generator(0, "rows", expert, epoch, step))[:64]
                optimiser.zero_grad()
                F.cross_entropy(network(task.preprocess(real.unit(rows))), real.labels[rows]).backward()
                optimiser.step()
            weights, buffers = layouts[-1].pack(network.state_dict())
            walk.append((weights.clone(), buffers.clone()))
        walks.append(walk)
    variants.write_experts(path, task, real, layouts[0], walks)


def configured(method: str, ipc: int, compile: bool, experts: Path) -> RunConfig:
    """Return a run that takes the memory of the recipe's in little time."""
    flags = {"method": method, "ipc": ipc, "iterations": ITERATIONS, "data": {"name": DATA}}
    engine = configs.resolve(flags).engine
    supply = engine.supply
    if isinstance(engine, TrajectoryEngine):  # whose every iteration is of many steps
        flags["iterations"] = 2
    options = [f"compute.compile={str(compile).lower()}", "compute.precision=fp32"]
    if supply.takes_experts:
        options.append(f"engine.supply.path={experts}")
    if isinstance(supply, TrajectoriesConfig):
        start = {"least": 0, "most": 2, "widen_from": 0, "widen_until": 0}
        options += [f"engine.start.{key}={value}" for key, value in start.items()]
        options += ["engine.expert_epochs=2", "engine.skip_above=0", "init=real"]
        options += [f"engine.steps={STEPS[ipc]}"] if ipc in STEPS else []
    if isinstance(engine, GradientEngine):  # which takes no more of them at once
        options.append(f"engine.batch_real={min(64, engine.batch_real)}")
    if isinstance(supply, TrainedConfig):
        options += ["engine.supply.updates_per_network=4", "engine.supply.epochs=1"]
    if isinstance(supply, QueueConfig):
        options += ["engine.supply.steps=2"] + (["engine.batch_real=1024"] if ipc < 5 else [])
    return configs.resolve(flags, options)


def measure(method: str, ipc: int, compile: bool, experts: Path) -> dict[str, Any]:
    """Return the estimate of a run and what its iterations took, in MB."""
    quiet_allocator()
    load_libraries()
    plan = configured(method, ipc, compile, experts)
    task, real = catalog.load(plan.data, "train")
    assert real.fingerprint
    idle = trimmed()
    with full_float32():
        distiller = assembly.assemble(plan, task, real, variants.DEVICE, print)
        expected = estimate(distiller, real)
        trimmed()
        keep_resident()
        forget_peak()
        for _ in range(plan.iterations):
            distiller.step()
    measured = resident("VmHWM") - idle + real.images.numel() / 1e6
    parts = {name: round(value / 1e6, 1) for name, value in dataclasses.asdict(expected).items()}
    return {
        "method": method,
        "ipc": ipc,
        "compile": compile,
        "estimate_mb": round(expected.total / 1e6, 1),
        "measured_mb": round(measured, 1),
        "ratio": round(expected.total / 1e6 / measured, 3),
        "parts_mb": parts,
        "date": datetime.date.today().isoformat(),
        "code": provenance.code_digest(),
    }


if __name__ == "__main__":
    main()
