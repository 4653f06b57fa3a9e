"""Settings of recipe ``dsdistill`` by successive halving: seconds are the budget, held-out images the judge.

    python benchmarks/halving.py FOLDER --ipc 10                    16 candidates at 40 s, 8 at 80, … 1 at 640
    python benchmarks/halving.py FOLDER --ipc 1 --candidates 8 --first 75
    python benchmarks/halving.py FOLDER --ipc 10 --ablate 600       each part off, at 600 seconds
    python benchmarks/halving.py FOLDER --ipc 10 --workers 2        two runs at once, on one thread each
    python benchmarks/halving.py FOLDER --quick                     digits, seconds: whether it works

A tenth of the training images of each class is held out; sets are distilled from the rest, and students are
tested on what is held out. The test images are never read. Every run has a cache of its own, so that its
seconds hold the training of its experts, too. In each round the better half goes on, with twice the seconds.
Candidates are the recipe as it is, each single change of ``CHANGES``, and random combinations of them.

Finished runs are kept in FOLDER/runs.json, and the same command goes on. Nothing else may run meanwhile. The
record goes to artifacts/halving-ipc10.json or artifacts/ablation-ipc10.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dsdistill
from benchmarks.common import ARTIFACTS, write_record
from dsdistill.config.options import flatten, merge
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.selection import validation_split
from dsdistill.errors import UserError
from dsdistill.files import replace
from dsdistill.seeding import generator

Options = dict[str, Any]

EXPERTS = "experts"
"""Among the options of a change: those of the training of its experts, which is part of the run's time."""

CHANGES: dict[str, dict[str, Options]] = {
    "lr": {
        "0.003": {"optimiser": {"lr": 0.003}},
        "0.03": {"optimiser": {"lr": 0.03}},
    },
    "images": {
        "whole": {"multi_formation": {"factor": 1}},
        "ninths": {"multi_formation": {"factor": 3}},
    },
    "start": {
        "random images": {"init": "mix"},
        "one random image, cut into four": {"init": "real"},
    },
    "network": {
        "32 maps": {"network": "convnet-w32"},
        "128 maps": {"network": "convnet-w128"},
    },
    "experts": {
        "two": {EXPERTS: {"count": 2}},
        "of 48 epochs, doubling": {EXPERTS: {"epochs": 48, "keep": "doubling"}},
    },
    "real images": {
        "64": {"engine": {"batch_real": 64}},
        "512": {"engine": {"batch_real": 512}},
    },
    "classes": {
        "by later snapshots": {"engine": {"classification": 0.5, "classifier": "later"}},
        "by the last, in a step of its own": {"engine": {"calibration": 0.5}},
    },
    "distance": {
        "characteristic functions": {
            "engine": {"discrepancy": {"kind": "characteristic", "frequencies": 1024}}
        },
    },
    "draws": {
        "2 of each snapshot": {"compute": {"cache_draws": 2}},
        "18 of each snapshot": {"compute": {"cache_draws": 18}},
    },
    "average": {"0.99": {"optimiser": {"ema": 0.99}}},
    "schedule": {"cosine": {"optimiser": {"schedule": "cosine", "final": 0.1}}},
    "cache": {"none": {"compute": {"cache_real": False}}},
}
"""Parts of the recipe, and what else each could be."""


@dataclass(frozen=True)
class Candidate:
    """The recipe with some of its parts changed.

    Attributes:
        changes: the part and its other value, of each change.
    """

    changes: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return "; ".join(f"{part}: {value}" for part, value in self.changes) or "as it is"

    @property
    def options(self) -> Options:
        """Return the nested options of the changes."""
        options: Options = {}
        for part, value in self.changes:
            options = merge(options, CHANGES[part][value])
        return options


def singles() -> Iterator[Candidate]:
    """Yield the recipe with one part changed, for every part and value."""
    for part, values in CHANGES.items():
        for value in values:
            yield Candidate(((part, value),))


def candidates(count: int, seed: int) -> list[Candidate]:
    """Return so many candidates: the recipe, random combinations of changes, and single changes.

    Half of them are combinations of up to three changes.
    """
    stream = generator(seed, "candidates")
    alone = list(singles())
    chosen = [Candidate(), *(alone[index] for index in torch.randperm(len(alone), generator=stream))]
    chosen = chosen[: max(1, count - count // 2)]
    while len(chosen) < count:
        size = 2 + int(torch.randint(2, (), generator=stream))
        picks = [alone[index].changes[0] for index in torch.randperm(len(alone), generator=stream)[:size]]
        combined = Candidate(tuple(sorted(dict(picks).items())))
        if combined not in chosen:
            chosen.append(combined)
    return chosen


@dataclass(frozen=True)
class Job:
    """One run: all that decides it.

    Attributes:
        candidate: its name.
        dataset: whose training images are split.
        ipc, seed: of the set.
        seconds: that its distillation takes, the training of its experts included.
        options: of the distillation, over the recipe; among them those of its experts.
        student: options of `dsdistill.evaluate`.
        workers: how many runs share the machine.
    """

    candidate: str
    dataset: str
    ipc: int
    seed: int
    seconds: float
    options: Options
    student: Options
    workers: int

    def run(self, folder: Path) -> dict[str, Any]:
        """Distil and evaluate; the set and the run's own cache are files of the folder."""
        name = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]
        cache = folder / f"{name}.cache"  # its experts are its own, not those of a run that was stopped
        shutil.rmtree(cache, ignore_errors=True)
        os.environ["DSDISTILL_CACHE"] = str(cache)
        data, set_file = self._data(), folder / f"{name}.h5"
        try:
            iterations = self._distil(set_file, cache, data)
        except UserError as error:  # no time is left after the experts
            return {"accuracy": 0.0, "values": [], "iterations": 0, "refused": str(error)}
        (row,) = dsdistill.evaluate(set_file, dataset=data, baselines="", **self.student).rows
        return {"accuracy": row.mean, "values": row.values, "iterations": iterations}

    def _data(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return what is not held out, and as test images what is."""
        _, real = catalog.load(DataConfig(name=self.dataset), "train")
        parts = zip(("train", "test"), validation_split(real), strict=True)
        return {part: (real.images[rows], real.labels[rows]) for part, rows in parts}

    def _distil(self, set_file: Path, cache: Path, data: dict[str, Any]) -> int:
        """Train experts, if the candidate has some of its own, and distil; return the iterations."""
        began, options = time.monotonic(), dict(self.options)
        experts = None
        if of_experts := options.pop(EXPERTS, {}):
            cache.mkdir()
            experts = cache / "experts.h5"
            overrides = [f"{key}={value}" for key, value in flatten(of_experts).items()]
            network = options.get("network")
            dsdistill.train_experts(
                experts, dataset=data, recipe="dsdistill", network=network, overrides=overrides
            )
        left = self.seconds - (time.monotonic() - began)
        summary = dsdistill.distill(
            set_file,
            dataset=data,
            method="dsdistill",
            ipc=self.ipc,
            experts=experts,
            budget=f"{max(left, 0):.1f}s",
            seed=self.seed,
            options=options,
            overwrite=True,
        )
        return summary.iterations


class Runs:
    """Runs on data with held-out images, each of which is kept once it is finished."""

    def __init__(self, folder: Path, dataset: str, ipc: int, student: dict[str, Any], workers: int) -> None:
        """Read what is finished.

        Args:
            folder: of the runs.
            dataset, ipc, student: of every `Job`.
            workers: how many run at once, each in a process of one thread; 1 runs them here.
        """
        self.folder, self.dataset, self.ipc, self._student = folder, dataset, ipc, student
        self._workers = workers
        self._kept = folder / "runs.json"
        self._rows: list[dict[str, Any]] = json.loads(self._kept.read_text()) if self._kept.exists() else []

    def rows(self, field: Sequence[tuple[Candidate, int]], seconds: float) -> list[dict[str, Any]]:
        """Return the runs of candidates with seeds, in their order; those that are missing are made."""
        jobs = [self._job(candidate, seconds, seed) for candidate, seed in field]
        for job, result in self._results([job for job in jobs if self._finished(job) is None]):
            self._keep(job, result)
        return [row for job in jobs if (row := self._finished(job)) is not None]

    def _results(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Yield the result of each job, as they finish."""
        if self._workers == 1:
            for job in jobs:
                yield job, job.run(self.folder)
            return
        os.environ["OMP_NUM_THREADS"] = "1"
        with ProcessPoolExecutor(self._workers, get_context("spawn"), max_tasks_per_child=1) as pool:
            pending = {pool.submit(job.run, self.folder): job for job in jobs}
            for result in as_completed(pending):
                yield pending[result], result.result()

    def _job(self, candidate: Candidate, seconds: float, seed: int) -> Job:
        options = candidate.options
        return Job(
            candidate.name, self.dataset, self.ipc, seed, seconds, options, self._student, self._workers
        )

    def _finished(self, job: Job) -> dict[str, Any] | None:
        return next((row for row in self._rows if asdict(job).items() <= row.items()), None)

    def _keep(self, job: Job, result: dict[str, Any]) -> None:
        self._rows.append(asdict(job) | result)
        replace(self._kept, json.dumps(self._rows, indent=1).encode())
        print(
            f"{job.seconds:6g} s  {result['accuracy']:6.2f}  {result['iterations']:6d} iterations  "
            f"{job.candidate}",
            flush=True,
        )


def halve(runs: Runs, field: Sequence[Candidate], seconds: float) -> list[dict[str, Any]]:
    """Run rounds until one candidate is left, and return all rows."""
    rows = []
    left = list(field)
    while left:
        these = runs.rows([(each, 0) for each in left], seconds)
        rows += these
        order = sorted(range(len(left)), key=lambda index: -these[index]["accuracy"])
        left = [left[index] for index in order[: len(left) // 2]]
        seconds *= 2
    return rows


def ablate(runs: Runs, seconds: float, seeds: int) -> list[dict[str, Any]]:
    """Run the recipe as it is, and with each part changed alone."""
    return runs.rows([(each, seed) for each in (Candidate(), *singles()) for seed in range(seeds)], seconds)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the runs")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--first", type=float, default=40.0, help="seconds of a run of the first round")
    parser.add_argument("--ablate", type=float, default=0.0, help="seconds of a run; no halving")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row of an ablation")
    parser.add_argument(
        "--workers", type=int, default=1, help="runs at once; of several, each has one thread"
    )
    parser.add_argument("--quick", action="store_true", help="digits; writes no record")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    dataset, student = "fashion-mnist", {"networks": "convnet3-w64", "repeats": 2, "epochs": 300}
    if arguments.quick:
        dataset, student = "digits", {"networks": "convnet2-w8", "repeats": 1, "epochs": 5}
    folder = arguments.folder.resolve()
    runs = Runs(folder, dataset, arguments.ipc, student, arguments.workers)
    if arguments.ablate:
        name, rows = "ablation", ablate(runs, arguments.ablate, arguments.seeds)
    else:
        name, rows = "halving", halve(runs, candidates(arguments.candidates, seed=0), arguments.first)
    if not arguments.quick:
        file = ARTIFACTS / f"{name}-ipc{arguments.ipc}.json"
        write_record(file, rows, dataset=dataset, students=student, held_out="a tenth of the training images")
        print(f"written to {file}")


if __name__ == "__main__":
    main()
