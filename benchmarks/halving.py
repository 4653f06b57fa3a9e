"""Settings of recipe ``dsdistill`` by successive halving: seconds are the budget, held-out images the judge.

    python benchmarks/halving.py FOLDER --ipc 10                    16 candidates at 40 s, 8 at 80, … 1 at 640
    python benchmarks/halving.py FOLDER --ipc 1 --candidates 8 --first 75
    python benchmarks/halving.py FOLDER --ipc 10 --ablate 600       each part off, at 600 seconds
    python benchmarks/halving.py FOLDER --ablate 600 --parts start,cache    these parts alone
    python benchmarks/halving.py FOLDER --ipc 10 --workers 2        two runs at once, on one thread each
    python benchmarks/halving.py FOLDER --ipc 50 --epochs 100       students of fewer epochs
    python benchmarks/halving.py FOLDER --ipc 50 --steps 1200       of as many steps for every set
    python benchmarks/halving.py FOLDER --parts images,schedule     changes of these parts alone
    python benchmarks/halving.py FOLDER --try "images: whole"       the recipe and this change, or several
    python benchmarks/halving.py FOLDER --quick                     digits, seconds: whether it works

A tenth of the training images of each class is held out; sets are distilled from the rest, and students are
tested on what is held out. The test images are never read. In each round the better half goes on, with twice
the seconds. Candidates are the recipe as it is, each single change of ``CHANGES``, and random combinations of
them. An ablation has every single change, and those of ``CORE``, which leave little of the recipe.

Every run is as the first on its machine: it has a process of its own, and an emptied cache, in which torch
keeps compiled code, too. So its seconds hold the training of its experts, a quarter of them at most, and a
minute of compiling where it is long enough to compile. Whoever uses the recipe once pays the same. A run
counts as 0 if its time is too short for its experts.

Finished runs are kept in FOLDER/runs.json, and the same command goes on. Nothing else may run meanwhile. The
record goes to artifacts/halving-ipc10.json or artifacts/ablation-ipc10.json. That of a search has the runs of
earlier ones in FOLDER, and that of an ablation those of single changes of other parts in as many seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dsdistill
from benchmarks import isolation
from benchmarks.common import ARTIFACTS, write_record
from dsdistill.config.options import flatten, merge
from dsdistill.config.recipe import load_expert_recipe, load_recipe
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.selection import validation_split
from dsdistill.distillation import config as configs
from dsdistill.engines import DistributionEngine
from dsdistill.errors import OutOfTime
from dsdistill.files import replace
from dsdistill.protocol import load_protocol
from dsdistill.seeding import generator

Options = dict[str, Any]

Parts = dict[str, dict[str, Options]]

RECIPE = "dsdistill"

EXPERTS = "experts"
"""Among the options of a change: those in the recipe of its experts. The time decides how many of the epochs
there are, as it does for the recipe's own."""

CHANGES: Parts = {
    "lr": {
        "0.003": {"optimiser": {"lr": 0.003}},
        "0.03": {"optimiser": {"lr": 0.03}},
    },
    "images": {
        "whole": {"multi_formation": {"factor": 1}},
        "quarters": {"multi_formation": {"factor": 2}},
        "ninths": {"multi_formation": {"factor": 3}},
    },
    "start": {
        "random images": {"init": "mix"},
        "one random image for each": {"init": "real"},
        "images that the expert classifies correctly": {"init": "correct"},
    },
    "network": {
        "32 maps": {"network": "convnet-w32"},
        "64 maps": {"network": "convnet-w64"},
        "128 maps": {"network": "convnet-w128"},
    },
    "experts": {
        "two": {"engine": {"supply": {"networks": 2}}},
        "of up to 48 epochs, doubling": {EXPERTS: {"epochs": 48, "keep": "doubling"}},
    },
    "real images": {
        "64": {"engine": {"batch_real": 64}},
        "512": {"engine": {"batch_real": 512}},
        "1024": {"engine": {"batch_real": 1024}},
    },
    "images at once": {
        "20 of a class": {"engine": {"batch_synthetic": 20}},
        "40 of a class": {"engine": {"batch_synthetic": 40}},
        "100 of a class": {"engine": {"batch_synthetic": 100}},
        "all": {"engine": {"batch_synthetic": 0}},
    },
    "classes": {
        "by later snapshots": {"engine": {"classification": 0.5, "classifier": "later"}},
        "by the last, in a step of its own": {"engine": {"calibration": 0.5}},
    },
    "distance": {
        "means": {"engine": {"discrepancy": {"kind": "mean"}}},
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

CORE: Parts = {
    "snapshots": {
        "the last epoch alone": {EXPERTS: {"keep": "last"}, "compute": {"cache_draws": 102}},
        "none, fresh networks": {
            "engine": {"supply": {"kind": "fresh"}},
            "compute": {"cache_real": False},
        },
    },
}
"""What the recipe is made of, and what could be in its place. The last epoch alone has as many draws as 17
snapshots have together. Fresh networks are endless, so that nothing is cached of them. The search leaves
these out, as some of its changes are of snapshots."""


_AND = "; "
"""Between the changes in a candidate's name."""


@dataclass(frozen=True)
class Candidate:
    """The recipe with some of its parts changed.

    Attributes:
        changes: the part and its other value, of each change.
    """

    changes: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return _AND.join(f"{part}: {value}" for part, value in self.changes) or "as it is"

    @classmethod
    def named(cls, name: str) -> Candidate:
        """Return the candidate of a name.

        Raises:
            KeyError: there is no such part, or no such value of it.
        """
        changes = [change.partition(": ") for change in name.split(_AND)]
        candidate = cls(tuple(sorted((part, value) for part, _, value in changes)))
        candidate.options  # noqa: B018 (raises if there is no such change)
        return candidate

    @property
    def options(self) -> Options:
        """Return the nested options of the changes."""
        options: Options = {}
        for part, value in self.changes:
            options = merge(options, (CHANGES | CORE)[part][value])
        return options


def singles(parts: Parts, dataset: str, ipc: int) -> Iterator[Candidate]:
    """Yield the recipe with one part changed, for every part and value that it does not have at this IPC."""
    usual = _settings(dataset, ipc, {})
    for part, values in parts.items():
        for value, options in values.items():
            own = {key: each for key, each in options.items() if key != EXPERTS}
            changed = _settings(dataset, ipc, own)
            if EXPERTS in options or any(usual.get(key) != changed[key] for key in flatten(own)):
                yield Candidate(((part, value),))


def _settings(dataset: str, ipc: int, options: Options) -> Options:
    """Return all options of a run, by dotted name; not more images at once than there are."""
    config = configs.resolve({"data": {"name": dataset}, "ipc": ipc, "method": RECIPE, **options})
    engine = config.engine
    if isinstance(engine, DistributionEngine):
        at_once = engine.images_at_once(config.multi_formation.decoded_count(ipc))
        config = dataclasses.replace(config, engine=dataclasses.replace(engine, batch_synthetic=at_once))
    return flatten(configs.as_table(config))


def candidates(count: int, seed: int, dataset: str, ipc: int, parts: Parts = CHANGES) -> list[Candidate]:
    """Return so many candidates: the recipe, single changes, and random combinations of changes.

    Half of them are combinations of up to three changes. There are fewer where few parts have no more.
    """
    stream = generator(seed, "candidates")
    alone = list(singles(parts, dataset, ipc))
    chosen = [Candidate(), *(alone[index] for index in torch.randperm(len(alone), generator=stream))]
    chosen = chosen[: max(1, count - count // 2)]
    for _ in range(_DRAWS * count):
        if len(chosen) == count:
            break
        size = 2 + int(torch.randint(2, (), generator=stream))
        picks = [alone[index].changes[0] for index in torch.randperm(len(alone), generator=stream)[:size]]
        combined = Candidate(tuple(sorted(dict(picks).items())))
        if len(combined.changes) > 1 and combined not in chosen:
            chosen.append(combined)
    return chosen


_DRAWS = 100
"""Of combinations, for each candidate: most repeat one another where there are few parts."""


@dataclass(frozen=True)
class Job:
    """One run: all that decides it.

    Attributes:
        candidate: its name.
        dataset: whose training images are split.
        ipc, seed: of the set.
        seconds: that its distillation takes, the training of its experts included.
        options: of the distillation, over the recipe; among them those of its experts.
        student: options of `dsdistill.evaluate`; ``steps`` in place of ``epochs`` for as many of any set.
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
        """Distil and evaluate, in a process that has done nothing before.

        Args:
            folder: where the set and the run's own cache lie.

        Returns:
            accuracy in percent, the mean of ``values``; iterations; seconds of the distillation by the clock.
        """
        name = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]
        cache, set_file = folder / f"{name}.cache", folder / f"{name}.h5"
        isolation.prepare(cache)
        method, data = self._recipe(cache), self._data()
        began = time.monotonic()
        try:
            summary = dsdistill.distill(
                set_file,
                dataset=data,
                method=method,
                ipc=self.ipc,
                budget=f"{self.seconds:g}s",
                seed=self.seed,
                options={key: value for key, value in self.options.items() if key != EXPERTS},
                overwrite=True,
            )
        except OutOfTime as error:
            isolation.remove_code(cache)
            result = {"accuracy": 0.0, "values": [], "iterations": 0, "refused": str(error)}
            return result | {"wall_seconds": time.monotonic() - began}
        seconds = time.monotonic() - began
        (row,) = dsdistill.evaluate(set_file, dataset=data, baselines="", **self._student(set_file)).rows
        isolation.remove_code(cache)
        result = {"accuracy": row.mean, "values": row.values, "iterations": summary.iterations}
        return result | {"wall_seconds": seconds}

    def _student(self, set_file: Path) -> Options:
        """Return the options of an evaluation; ``steps`` become the fewest epochs that have as many."""
        options = dict(self.student)
        if steps := options.pop("steps", 0):
            batches = load_protocol("dm").batches(len(dsdistill.load(set_file)))
            options["epochs"] = -(-steps // batches)
        return options | {"protocol": "dm"}

    def _data(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return what is not held out, and as test images what is."""
        _, real = catalog.load(DataConfig(name=self.dataset), "train")
        parts = zip(("train", "test"), validation_split(real), strict=True)
        return {part: (real.images[rows], real.labels[rows]) for part, rows in parts}

    def _recipe(self, folder: Path) -> str:
        """Return the recipe; one whose experts are the candidate's own is written into a folder."""
        own = self.options.get(EXPERTS)
        if not own:
            return RECIPE
        usual = load_expert_recipe(load_recipe(RECIPE).experts)
        method, experts = folder / f"{RECIPE}.toml", folder / f"{EXPERTS}.toml"
        scale = {key: own.get(key, value) for key, value in usual.laptop.items()}
        of_experts = {"title": self.candidate, "base": usual.name, "defaults": own, "laptop": scale}
        experts.write_text(tomli_w.dumps(of_experts))
        of_method = {"title": self.candidate, "base": RECIPE, "experts": str(experts)}
        method.write_text(tomli_w.dumps(of_method))
        return str(method)


class Runs:
    """Runs on data with held-out images, each of which is kept once it is finished."""

    def __init__(self, folder: Path, dataset: str, ipc: int, student: dict[str, Any], workers: int) -> None:
        """Read what is finished.

        Args:
            folder: of the runs.
            dataset, ipc, student: of every `Job`.
            workers: how many run at once; of several, each has one thread.
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

    def beside(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the other runs that are kept of the same data and students, as of an earlier search."""
        same = {"dataset": self.dataset, "ipc": self.ipc, "student": self._student, "workers": self._workers}
        return [row for row in self._rows if same.items() <= row.items() and row not in rows]

    def _results(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Yield the result of each job, as they finish."""
        if self._workers > 1:
            os.environ["OMP_NUM_THREADS"] = "1"
        with isolation.processes(self._workers) as pool:
            pending = {pool.submit(job.run, self.folder): job for job in jobs}
            try:
                for result in as_completed(pending):
                    yield pending[result], result.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

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


def halve(runs: Runs, field: Sequence[Candidate], seconds: float, rounds: int = 0) -> list[dict[str, Any]]:
    """Run rounds, until one candidate is left or so many are run, and return all rows."""
    rows = []
    left = list(field)
    for _ in range(rounds) if rounds else itertools.count():
        if not left:
            break
        these = runs.rows([(each, 0) for each in left], seconds)
        rows += these
        order = sorted(range(len(left)), key=lambda index: -these[index]["accuracy"])
        left = [left[index] for index in order[: len(left) // 2]]
        seconds *= 2
    return rows


def ablate(runs: Runs, seconds: float, seeds: int, parts: Parts = CHANGES | CORE) -> list[dict[str, Any]]:
    """Run the recipe as it is, and with each part changed alone; other runs as long stand with them."""
    field = (Candidate(), *singles(parts, runs.dataset, runs.ipc))
    rows = runs.rows([(each, seed) for each in field for seed in range(seeds)], seconds)
    beside = [row for row in runs.beside(rows) if row["seconds"] == seconds]
    return rows + [row for row in beside if _AND not in row["candidate"]]


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
    parser.add_argument("--rounds", type=int, default=0, help="at most; 0 until one is left")
    parser.add_argument("--parts", default="", help="whose changes are tried, comma-separated")
    parser.add_argument("--try", nargs="+", default=[], dest="names", help="candidates by their names")
    parser.add_argument("--epochs", type=int, default=300, help="of the students")
    parser.add_argument("--steps", type=int, default=0, help="of the students, in place of --epochs")
    parser.add_argument("--repeats", type=int, default=2, help="students of each set")
    parser.add_argument("--quick", action="store_true", help="digits; writes no record")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    length = {"steps": arguments.steps} if arguments.steps else {"epochs": arguments.epochs}
    dataset, student = "fashion-mnist", {"networks": "convnet3-w64", **length}
    student["repeats"] = arguments.repeats
    if arguments.quick:
        dataset, student = "digits", {"networks": "convnet2-w8", "repeats": 1, "epochs": 5}
    folder = arguments.folder.resolve()
    runs = Runs(folder, dataset, arguments.ipc, student, arguments.workers)
    every = CHANGES | CORE if arguments.ablate else CHANGES
    parts = {name: every[name] for name in filter(None, arguments.parts.split(","))} or every
    if arguments.ablate:
        name, rows = "ablation", ablate(runs, arguments.ablate, arguments.seeds, parts)
    else:
        named = [Candidate(), *map(Candidate.named, arguments.names)] if arguments.names else []
        field = named or candidates(arguments.candidates, 0, dataset, arguments.ipc, parts)
        name, rows = "halving", halve(runs, field, arguments.first, arguments.rounds)
        rows += runs.beside(rows)
    if not arguments.quick:
        file = ARTIFACTS / f"{name}-ipc{arguments.ipc}.json"
        write_record(file, rows, dataset=dataset, students=student, held_out="a tenth of the training images")
        print(f"written to {file}")


if __name__ == "__main__":
    main()
