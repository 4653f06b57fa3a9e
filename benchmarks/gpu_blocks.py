"""The blocks of benchmarks/gpu_day.py: what a first hour on a GPU measures, in pieces of minutes.

A block either times variants, which a process of its own does (`Measured`), or runs commands (`Commands`).
"""

from __future__ import annotations

import functools
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from dsdistill.runtime.device import peak_memory, reset_peak_memory, wait

Work = Callable[[], Any]
Prepare = Callable[[], Work]

MOST_MINUTES = 8.0
"""Of a block in one call."""
_SECONDS, _FEWEST, _MOST = 20.0, 3, 30


@dataclass(frozen=True)
class Block:
    """One piece of work whose result is a file.

    Attributes:
        name: of the block and its file.
        about: what it measures, in a few words.
        minutes: an estimate.
        needs: packages without which it is left out.
    """

    name: str
    about: str
    minutes: float
    needs: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def lacking(self) -> list[str]:
        """Return the packages that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


@dataclass(frozen=True)
class Measured(Block):
    """Variants to be timed one after the other, the first of them the baseline.

    Attributes:
        variants: returns them by name.
    """

    variants: Callable[[], Mapping[str, Prepare]]


@dataclass(frozen=True)
class Commands(Block):
    """Commands to be run one after the other.

    Each is interrupted when the time of a call is over, and run again by a later call; those that are
    finished are not.

    Attributes:
        commands: arguments; "{out}" stands for the folder of the results.
    """

    commands: tuple[tuple[str, ...], ...]


def measure(variants: Mapping[str, Prepare], device: torch.device) -> list[dict[str, Any]]:
    """Time each variant, and count what it holds on the device; one that fails leaves its error.

    Returns:
        a row for each: median seconds, how many times faster than the first, and peak bytes above what was
        held before the first call.
    """
    rows: list[dict[str, Any]] = []
    for name, prepare in variants.items():
        try:
            rows.append({"variant": name, **_measured(prepare, device)})
        except Exception as error:  # the others are worth measuring all the same
            rows.append({"variant": name, "error": f"{type(error).__name__}: {error}".splitlines()[0]})
    baseline = rows[0].get("seconds")
    for row in rows:
        if baseline and "seconds" in row:
            row["times_faster"] = baseline / row["seconds"]
    return rows


def _measured(prepare: Prepare, device: torch.device) -> dict[str, Any]:
    work = prepare()
    wait(device)
    reset_peak_memory(device)
    base_bytes = torch.cuda.memory_allocated(device) if device.type == "cuda" else peak_memory(device)
    since = time.perf_counter()
    for _ in range(2):  # compiles, captures and fills caches
        work()
    wait(device)
    first = time.perf_counter() - since
    seconds: list[float] = []
    while len(seconds) < _FEWEST or (sum(seconds) < _SECONDS and len(seconds) < _MOST):
        since = time.perf_counter()
        work()
        wait(device)
        seconds.append(time.perf_counter() - since)
    return {
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "rounds": len(seconds),
        "first_two_s": first,
        "peak_bytes": peak_memory(device) - base_bytes,
    }


# On a GPU ---------------------------------------------------------------------------------------------------

CASES = {
    "dm": "a DM iteration, 256 real images a class",
    "datadam": "a DataDAM iteration, 64 real images a class",
    "idm": "an IDM iteration",
    "ncfm": "an NCFM iteration, 1024 real images a class",
    "kernel": "a FRePo iteration",
    "gradient": "a DSA image update over all classes",
    "inner": "an epoch of DSA's network on the synthetic set",
    "trajectory": "an MTT iteration of 20 steps",
    "recovery": "a step of all images of SRe2L",
    "expert": "a tenth of an expert's epoch",
    "student": "two epochs of a student on 100 images",
}
"""Those of speed.py and memory.py, and what is timed."""

_LEVELS = {
    "fp32, eager": ("fp32", False),
    "fp32, compiled": ("fp32", True),
    "bf16, eager": ("bf16", False),
    "bf16, compiled": ("bf16", True),
}


def case(what: str, ipc: int = 10, steps: int = 20) -> dict[str, Prepare]:
    """Return our variants of a case."""
    from benchmarks import variants

    ours = getattr(variants, f"ours_{what}")
    if what == "trajectory":
        levels = {"exact, eager": ("exact", False), "exact, compiled": ("exact", True)}
        return {name: functools.partial(ours, ipc, steps, *level) for name, level in levels.items()}
    return {name: functools.partial(ours, ipc, *level) for name, level in _LEVELS.items()}


def _students(counts: Iterable[int], graphs: Iterable[bool], network: str = "convnet3") -> dict[str, Prepare]:
    """Return epochs of students that train side by side, with and without CUDA graphs."""
    from benchmarks import variants

    return {
        f"{count} students of {network}" + (", graphs" if graph else ""): functools.partial(
            variants.epochs_of_students, network, count, graph
        )
        for count in counts
        for graph in graphs
    }


def _experts() -> dict[str, Prepare]:
    from benchmarks import variants

    return {
        f"{network}{', graphs' if graph else ''}": functools.partial(
            variants.part_of_expert, "fp32", False, graph, network
        )
        for network in ("convnet", "resnet18-batch")
        for graph in (False, True)
    }


_DSDISTILL = (sys.executable, "-m", "dsdistill")
_TOLD = ("--dataset", "fashion-mnist", "--ipc", "10", "--device", "cuda", "--resume")
_EXPERTS = (*_DSDISTILL, "experts", "--dataset", "fashion-mnist", "--device", "cuda", "--resume")


def _full(method: str, minutes: float, experts: Sequence[str] = ()) -> Commands:
    """Return a full-length run on Fashion-MNIST, its experts and its evaluation."""
    file, pool = f"{{out}}/{method}.h5", f"{{out}}/{method}-experts.h5"
    commands = [(*_EXPERTS, *experts, "-o", pool)] if experts else []
    flags = ("--experts", pool) if experts else ()
    commands.append((*_DSDISTILL, "distill", "--method", method, *_TOLD, *flags, "-o", file))
    evaluate = (*_DSDISTILL, "evaluate", file, "--repeats", "5", "--device", "cuda", "--resume")
    commands.append((*evaluate, "--json", f"{{out}}/{method}-accuracy.json"))
    return Commands(
        f"full-{method}", f"{method} on Fashion-MNIST, IPC 10, full length", minutes, tuple(commands)
    )


_PYTEST = (sys.executable, "-m", "pytest", "-q", "-m", "gpu")
_TESTS = ("pytest", "jaxtyping", "beartype")


def _tests(name: str, minutes: float, *selection: str) -> Commands:
    return Commands(f"tests-{name}", "tests marked gpu", minutes, ((*_PYTEST, *selection),), needs=_TESTS)


def gpu_blocks() -> list[Block]:
    """Return the blocks of a GPU, the most telling first."""
    file = "tests/test_gpu.py"
    return [
        _tests("paths", 4, file, "-k", "distil_and_evaluate or changes_no or wait"),
        Measured("graphs-student", "students with and without CUDA graphs", 2, _graphs_of_students),
        Measured("graphs-expert", "experts with and without CUDA graphs", 3, _experts),
        Measured("stacked", "students one at a time and stacked", 3, _stacked),
        *(Measured(f"case-{what}", about, 3, functools.partial(case, what)) for what, about in CASES.items()),
        _full("dm", 8),
        _full("ncfm", 25, ("--recipe", "ncfm")),
        _full("datm", 60, ("--recipe", "datm", "--count", "10")),
        _tests("features", 8, file, "-k", "features_are_matched"),
        _tests("resumed", 6, file, "-k", "killed or gradient or class_at_a_time or baselines"),
        _tests("augment", 1, "tests/augment/test_dsa.py"),
    ]


def _graphs_of_students() -> dict[str, Prepare]:
    return _students((1, 5), (False, True)) | _students((1,), (False, True), "resnet18-batch")


def _stacked() -> dict[str, Prepare]:
    return _students((1, 5, 20), (False,))


# For the test -----------------------------------------------------------------------------------------------


def _toy(size: int) -> Work:
    tensor = torch.ones(size, size)
    return lambda: tensor @ tensor


def _toys() -> dict[str, Prepare]:
    return {f"{size}": functools.partial(_toy, size) for size in (4, 8)} | {"none": _missing}


def _missing() -> Work:
    raise RuntimeError("there is none")


def tiny_blocks() -> list[Block]:
    """Return blocks of no time, for a CPU."""
    command = (sys.executable, "-c", "print('{out}')")
    return [
        Measured("toys", "products", 0, _toys),
        Commands("commands", "a line", 0, (command, command)),
        Commands("elsewhere", "nothing", 0, (command,), needs=("no_such_package",)),
    ]
