"""Are plans right? What `dsdistill plan` says of seconds and memory, and what the run then takes.

    python benchmarks/planning.py                       six kinds of runs of about a minute each
    python benchmarks/planning.py --kinds distribution,experts

Each run is planned in a process of its own, and then made in another: so neither has what the other has
compiled or read. Seconds are those of the work that is planned: of the loop, of the epochs, of the
students, of the labelling. Memory is the peak of resident memory above what the process had when the work
began, and the bytes of the real data, which it has by then. Compiling is switched off, since the first run
would compile for the second. Fashion-MNIST, one thread. The experts that a trajectory run follows, and the
set that is evaluated and labelled, are made before. Written to artifacts/planning.json after every row.
Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dsdistill
from benchmarks.common import ARTIFACTS, write_record
from benchmarks.memory import forget_peak, load_libraries, resident, trimmed
from dsdistill.runtime.device import quiet_allocator

COMPUTE = ("compute.threads=1", "compute.compile=false", "compute.precision=fp32")


@dataclass(frozen=True)
class Size:
    """How large the runs are.

    Attributes:
        dataset: of all.
        network: of all.
        iterations: of the loop, by engine.
        epochs: of experts, at least two.
        students: epochs of students.
        views: of each image.
    """

    dataset: str
    network: str
    iterations: Mapping[str, int]
    epochs: int
    students: int
    views: int


FULL = Size(
    "fashion-mnist", "convnet3-w32", {"distribution": 60, "gradient": 12, "trajectory": 150}, 2, 6000, 20_000
)

Run = tuple[str, tuple[Any, ...], dict[str, Any]]
"""The name of a public call, and its arguments."""


def runs(size: Size, folder: Path) -> dict[str, Run]:
    """Return the runs by kind."""
    common = {"dataset": size.dataset, "device": "cpu"}
    training = {**common, "network": size.network, "overwrite": True, "overrides": list(COMPUTE)}

    def loop(kind: str, method: str, **options: Any) -> Run:
        keywords = {**training, "method": method, "ipc": 1, "iterations": size.iterations[kind], **options}
        return "distill", (folder / f"{kind}.h5",), keywords

    experts = {**training, "recipe": "mtt", "count": 1, "epochs": size.epochs}
    followed = str(folder / "followed.h5")
    students = {**common, "epochs": size.students, "repeats": 1, "save": False, "precision": "fp32"}
    files = folder / "made.h5", folder / "labelled.h5"
    labels = {"teachers": followed, "views": size.views, "overwrite": True}
    labels |= {"device": "cpu", "precision": "fp32"}
    start = {"least": 0, "most": 1, "widen_from": 0, "widen_until": 0}
    follow = [*COMPUTE, "engine.expert_epochs=1", "engine.steps=10", "engine.skip_above=0"]
    follow += [f"engine.start.{key}={value}" for key, value in start.items()]
    return {
        "distribution": loop("distribution", "dm"),
        "gradient": loop("gradient", "dc"),
        "trajectory": loop("trajectory", "mtt", experts=followed, overrides=follow),
        "experts": ("train_experts", (folder / "experts.h5",), experts),
        "evaluate": ("evaluate", (folder / "made.h5",), students),
        "label": ("label", files, labels),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kinds", default="distribution,gradient,trajectory,experts,evaluate,label")
    parser.add_argument("-o", "--output", type=Path, default=ARTIFACTS / "planning.json")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        prepare(FULL, Path(name))
        for kind in args.kinds.split(","):
            rows.append(compared(kind, runs(FULL, Path(name))[kind], in_process))
            print(described(rows[-1]), flush=True)
            write_record(args.output, rows)


def prepare(size: Size, folder: Path) -> None:
    """Make the experts that others follow or learn from, and the set that is evaluated and labelled."""
    by_kind = runs(size, folder)
    _, _, experts = by_kind["experts"]
    dsdistill.train_experts(folder / "followed.h5", **experts)
    _, _, options = by_kind["distribution"]
    dsdistill.distill(folder / "made.h5", **{**options, "iterations": 2})


def compared(kind: str, run: Run, call: Callable[..., Any]) -> dict[str, Any]:
    """Plan a run and make it.

    Args:
        call: calls a function with arguments, in a process of its own or not.
    """
    planned, taken = call(plan, run), call(make, run)
    if planned["seconds"] is None:
        raise RuntimeError(f"{kind}: there is too little memory to plan it")
    return {
        "kind": kind,
        "amount": f"{planned['amount']:,} {planned['work']}",
        "planned_seconds": round(planned["seconds"], 3),
        "seconds": round(taken["seconds"], 3),
        "ratio": round(planned["seconds"] / taken["seconds"], 3),
        "planned_mb": round(planned["memory"] / 1e6, 1),
        "mb": round(taken["memory"] / 1e6, 1),
        "memory_ratio": round(planned["memory"] / max(1, taken["memory"]), 3),
    }


def described(row: Mapping[str, Any]) -> str:
    """Write a row in a line."""
    return (
        f"{row['kind']:14s}planned {row['planned_seconds']:7.1f} s, took {row['seconds']:7.1f} s "
        f"(ratio {row['ratio']:.2f}); planned {row['planned_mb']:6.0f} MB, took {row['mb']:6.0f} MB"
    )


def plan(run: Run) -> dict[str, Any]:
    """Return what a dry run says."""
    name, arguments, options = run
    estimate = dsdistill.dry_run(getattr(dsdistill, name), *arguments, **options)
    return {
        "amount": estimate.amount,
        "work": estimate.work,
        "seconds": estimate.seconds,
        "memory": estimate.memory_bytes or 0,
    }


class Clock(dsdistill.Callback):
    """Takes the time and the memory of the work, from the first estimate or start to the end."""

    def __init__(self) -> None:
        self._since, self._before, self._data = 0.0, 0.0, 0
        self.seconds, self.memory = 0.0, 0.0

    def on_start(self, start: Any) -> None:
        real = getattr(start, "real", None)
        self._data = 0 if real is None else real.images.nbytes
        self._before = trimmed()
        forget_peak()
        self._since = time.monotonic()

    def on_estimate(self, estimate: Any) -> None:
        if estimate.work != "iterations":  # those that are timed count; else they come before the work
            self._since = time.monotonic()

    def on_end(self, result: Any) -> None:
        self.seconds = getattr(result, "seconds", None) or time.monotonic() - self._since
        self.memory = 1e6 * (resident("VmHWM") - self._before) + self._data


def make(run: Run) -> dict[str, Any]:
    """Make a run, and return what it took."""
    name, arguments, options = run
    clock = Clock()
    getattr(dsdistill, name)(*arguments, callbacks=[clock], **options)
    return {"seconds": clock.seconds, "memory": clock.memory}


def in_process(function: Callable[[Run], dict[str, Any]], run: Run) -> dict[str, Any]:
    """Return what a function returns in a process of its own."""
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send, args=(theirs, function, run))
    process.start()
    theirs.close()
    result: dict[str, Any] = ours.recv()
    process.join()
    return result


def _send(pipe: Connection, function: Callable[[Run], dict[str, Any]], run: Run) -> None:
    quiet_allocator()
    load_libraries()
    pipe.send(function(run))


if __name__ == "__main__":
    main()
