"""Settings of recipe ``dsdistill`` by successive halving: seconds are the budget, held-out images the judge.

    python benchmarks/halving.py FOLDER --ipc 10                    16 candidates at 40 s, 8 at 80, … 1 at 640
    python benchmarks/halving.py FOLDER --ipc 1 --candidates 8 --first 75
    python benchmarks/halving.py FOLDER --ipc 10 --ablate 600       each part off, at 600 seconds
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
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dsdistill
from benchmarks.common import ARTIFACTS, write_record
from dsdistill.config.options import merge
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.selection import validation_split
from dsdistill.files import replace
from dsdistill.seeding import generator

Options = dict[str, Any]

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
    "experts": {"2": {"engine": {"supply": {"count": 2}}}},
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


class Runs:
    """Runs on data with held-out images, each of which is kept once it is finished."""

    def __init__(self, folder: Path, dataset: str, ipc: int, student: dict[str, Any]) -> None:
        """Read the data, and what is finished.

        Args:
            folder: of the runs.
            dataset: whose training images are split.
            ipc: of every set.
            student: options of `dsdistill.evaluate`.
        """
        self.folder, self.dataset, self.ipc, self._student = folder, dataset, ipc, student
        self._file = folder / "runs.json"
        self._rows: list[dict[str, Any]] = json.loads(self._file.read_text()) if self._file.exists() else []
        _, real = catalog.load(DataConfig(name=dataset), "train")
        train, held_out = validation_split(real)
        self._data = {
            "train": (real.images[train], real.labels[train]),
            "test": (real.images[held_out], real.labels[held_out]),
        }

    def row(self, candidate: Candidate, seconds: float, seed: int = 0) -> dict[str, Any]:
        """Return a finished run, which is made if it is not there yet."""
        about = {"candidate": candidate.name, "seconds": seconds, "ipc": self.ipc, "seed": seed}
        about |= {"dataset": self.dataset, "student": self._student}
        for row in self._rows:
            if about.items() <= row.items():
                return row
        name = f"{len(self._rows):03d}"
        cache = self.folder / f"cache-{name}"  # its experts are its own, not those of a run that was stopped
        shutil.rmtree(cache, ignore_errors=True)
        os.environ["DSDISTILL_CACHE"] = str(cache)
        file = self.folder / f"{name}.h5"
        summary = dsdistill.distill(
            file,
            dataset=self._data,
            method="dsdistill",
            ipc=self.ipc,
            budget=f"{seconds:g}s",
            seed=seed,
            options=candidate.options,
            overwrite=True,
        )
        report = dsdistill.evaluate(file, dataset=self._data, baselines="", **self._student)
        (row,) = report.rows
        result = {"accuracy": row.mean, "values": row.values, "iterations": summary.iterations}
        self._rows.append(about | result)
        replace(self._file, json.dumps(self._rows, indent=1).encode())
        print(
            f"{seconds:6g} s  {row.mean:6.2f}  {summary.iterations:6d} iterations  {candidate.name}",
            flush=True,
        )
        return self._rows[-1]


def halve(runs: Runs, field: Sequence[Candidate], seconds: float) -> list[dict[str, Any]]:
    """Run rounds until one candidate is left, and return all rows."""
    rows = []
    left = list(field)
    while left:
        these = [(runs.row(each, seconds), each) for each in left]
        rows += [row for row, _ in these]
        these.sort(key=lambda pair: -pair[0]["accuracy"])
        left = [each for _, each in these[: len(these) // 2]]
        seconds *= 2
    return rows


def ablate(runs: Runs, seconds: float, seeds: int) -> list[dict[str, Any]]:
    """Run the recipe as it is, and with each part changed alone."""
    return [runs.row(each, seconds, seed) for each in (Candidate(), *singles()) for seed in range(seeds)]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the runs")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--first", type=float, default=40.0, help="seconds of a run of the first round")
    parser.add_argument("--ablate", type=float, default=0.0, help="seconds of a run; no halving")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row of an ablation")
    parser.add_argument("--quick", action="store_true", help="digits; writes no record")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    dataset, student = "fashion-mnist", {"networks": "convnet3-w64", "repeats": 2, "epochs": 300}
    if arguments.quick:
        dataset, student = "digits", {"networks": "convnet2-w8", "repeats": 1, "epochs": 5}
    runs = Runs(arguments.folder.resolve(), dataset, arguments.ipc, student)
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
