"""Results of cells that were never run."""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from dsdistill.bench.results import CellResult, EvaluationResult, Point
from dsdistill.evaluation.rows import Row


def row(kind: str, values: list[float], network: str = "convnet", images: int = 10) -> Row:
    """Return one row of an evaluation."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    mean = statistics.mean(values)
    return Row(kind, network, "dm", 1000, mean, spread, values, images, images, seconds=1.0)


def result(
    method: str = "dm",
    ipc: int = 1,
    seed: int = 0,
    *,
    dataset: str = "cifar10",
    rows: list[Row] | None = None,
    path: Path | None = None,
    **changes: Any,
) -> CellResult:
    """Return a finished cell whose images take 1,000 bytes each, real ones 100."""
    images = 10 * ipc
    cost = {"image_bytes": 990.0 * images, "label_bytes": 10.0 * images, "real_images": 10.0 * images}
    report: dict[str, Any] = {"protocol": "dm", "epochs": 1000, "repeats": 2, "lr": 0.01, "cost": cost}
    report |= {"date": "2026-01-02T03:04:05+00:00", "packages": {"torch": "2.6"}}
    rows = rows or [row("distilled", [50.0 + seed, 52.0 + seed]), row("random", [30.0, 31.0])]
    facts: dict[str, Any] = {
        "suite": "tried",
        "cell": f"{dataset}/{method}-ipc{ipc}-seed{seed}",
        "dataset": dataset,
        "method": method,
        "ipc": ipc,
        "seed": seed,
        "network": "convnet",
        "settings": {
            "distil": {"method": method, "ipc": ipc, "seed": seed},
            "evaluate": {"baselines": ["random"]},
        },
        "config": f'method = "{method}"\nipc = {ipc}\nseed = {seed}\n',
        "file": "set.h5",
        "sha256": "0" * 64,
        "iterations": 100,
        "seconds": 50.0,
        "peak_memory_bytes": 10**9,
        "machine": "a machine",
        "created": "2026-01-02T03:00:00+00:00",
        "evaluations": [EvaluationResult("", report, rows)],
        "curve": [Point(50, 25.0, 45.0, 0.0, 1), Point(100, 50.0, 51.0, 1.0, 2)],
        "commands": [f"dsdistill distill --method {method}"],
        "path": path,
    }
    return CellResult(**(facts | changes))


def coded(method: str = "dm", ipc: int = 1, seed: int = 0, **changes: Any) -> CellResult:
    """Return a cell with copies of 4 and 2 bits a pixel, and random images for the bytes of each.

    At one image per class the set takes 10,000 bytes, and its copies 2,000 and 1,000; each copy is a point
    less accurate, and so are real images.
    """
    evaluations = []
    for lost, (bits, size) in enumerate(((32, 1000.0), (4, 200.0), (2, 100.0))):
        cost = {"image_bytes": 9.9 * ipc * size, "label_bytes": 0.1 * ipc * size, "real_images": 100.0 * ipc}
        report = {"protocol": "dm", "epochs": 1000, "repeats": 2, "lr": 0.01, "cost": cost}
        real = row("random@bytes", [40.0 - lost, 41.0 - lost], images=100 * ipc)
        rows = [row("distilled", [50.0 - lost, 52.0 - lost], images=10 * ipc), real]
        rows += [row("random", [30.0, 31.0], images=10 * ipc)] if not lost else []
        evaluations.append(EvaluationResult("", report, rows, bits))
    return result(method, ipc, seed, **{"evaluations": evaluations, **changes})


class Ended:
    """A process that has ended."""

    def __init__(self, code: int = 0) -> None:
        self.returncode = code

    def poll(self) -> int:
        return self.returncode


class Commands:
    """Stands in for ``dsdistill`` as a process: leaves the files a command would."""

    def __init__(self, finished: Path, failing: str = "") -> None:
        self.finished, self.failing = finished, failing
        self.seen: list[str] = []

    def __call__(self, words: Sequence[str], log: Path, threads: int) -> subprocess.Popen[bytes]:
        options = dict(itertools.pairwise(words))
        output = Path(options.get("-o") or options["--json"])
        self.seen.append(f"{words[0]} {output.parent.name}/{output.name}")
        if self.failing and self.failing in str(output):
            log.write_text("working\ndsdistill: the disk is full\n")
            return cast("subprocess.Popen[bytes]", Ended(2))
        if words[0] == "evaluate":
            rows = [row("distilled", [50.0, 51.0], options["--networks"]).__dict__]
            report = {"protocol": options["--protocol"], "seed": int(options["--seed"]), "cost": {}}
            output.write_text(json.dumps({"rows": rows, **report}))
        else:
            shutil.copy(self.finished, output)
        return cast("subprocess.Popen[bytes]", Ended())
