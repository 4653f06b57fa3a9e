"""Time several variants of one computation in turn, each in a process of its own, and compare medians.

Each variant has its own process because the allocator and the compiler are settings of a process. Only one
works at a time, A B A B …, so that a drift of the machine's speed meets them all.
"""

from __future__ import annotations

import multiprocessing as mp
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

Variant = Callable[[], Callable[[], Any]]


def alternate(variants: Mapping[str, Variant], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Time each variant once a round.

    Args:
        variants: name -> a picklable function that prepares and returns the function to time.
        rounds: timed calls of each.
        warmup: calls of each before, not counted (compiling, caches).

    Returns:
        name -> seconds of every timed call.
    """
    context = mp.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes: list[SpawnProcess] = []
    for name, prepare in variants.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(prepare, theirs), daemon=True)
        process.start()
        pipes[name], processes = ours, [*processes, process]
        for _ in range(warmup):  # one variant after the other, so that none compiles beside another
            _call(ours)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, pipe in pipes.items():
            seconds[name].append(_call(pipe))
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    return seconds


def report(seconds: dict[str, list[float]], baseline: str, unit: str) -> list[dict[str, Any]]:
    """Print and return a row per variant: median seconds, range, median of paired ratios to a baseline."""
    rows = []
    for name, values in seconds.items():
        ratios = [plain / value for plain, value in zip(seconds[baseline], values, strict=True)]
        rows.append(
            {
                "way": name,
                "median_s": statistics.median(values),
                "min_s": min(values),
                "max_s": max(values),
                "times_faster": statistics.median(ratios),
                "rounds": len(values),
            }
        )
        print(
            f"{name:44s} {rows[-1]['median_s']:8.3f} s a {unit} ({min(values):.3f}..{max(values):.3f}), "
            f"{rows[-1]['times_faster']:.2f}x",
            flush=True,
        )
    return rows


def _call(pipe: Connection) -> float:
    pipe.send(True)
    return pipe.recv()


def _serve(prepare: Callable[[], Callable[[], Any]], pipe: Connection) -> None:
    work = prepare()
    while pipe.recv():
        begin = time.perf_counter()
        work()
        pipe.send(time.perf_counter() - begin)
