"""How much faster several processes do the work of one, each on one thread.

    python benchmarks/scaling.py                        two processes against one, every kind of work
    python benchmarks/scaling.py --only experts,label   some kinds
    python benchmarks/scaling.py --quick                next to nothing to do, to see that it works

Every kind is a command of `dsdistill` on random images of Fashion-MNIST's size. One process and those of
torchrun take turns. The command alone is timed, from the moment at which all processes have imported what it
needs: reading, writing and waiting for one another are part of it. The efficiency is what several processes
do in a second, over what one does times their number. Processes that share a machine also share its caches
and its memory, so that as many separate ones, each with the whole work, run side by side as well: what one
alone does, over what each of these does, is the most that the machine allows. Rows go to
artifacts/scaling.json, in place of earlier ones of their kinds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import torch

import dsdistill
from benchmarks.common import ARTIFACTS, write_record
from dsdistill.data.preprocess import Standardise
from dsdistill.seeding import generator
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet

CLASSES, SIDE = 10, 28


@dataclass(frozen=True)
class Sizes:
    """How much work there is."""

    network: str = "convnet3"
    real: int = 2000
    ipc: int = 20
    expert_epochs: int = 1
    student_epochs: int = 5
    views: int = 80
    iterations: int = 24
    trajectories: int = 2


FULL = Sizes()
QUICK = Sizes("convnet2-w4", 100, 2, 1, 1, 4, 2, 2)


@dataclass(frozen=True)
class Case:
    """One kind of work.

    Attributes:
        name: of the kind.
        amount, unit: of the work that a command does.
        words: the command, without ``dsdistill``, by the folder of its inputs and the file that it writes.
    """

    name: str
    amount: int
    unit: str
    words: Callable[[Path, Path], Sequence[str]]


def cases(sizes: Sizes) -> list[Case]:
    """Return every kind of work."""
    plain = ("--set", "compute.threads=1", "--set", "compute.compile=false")
    experts, students = 4, 4
    images = CLASSES * sizes.ipc

    def train(folder: Path, output: Path) -> list[str]:
        words = ["experts", "--recipe", "ncfm", "--network", sizes.network, "--count", str(experts)]
        return [*words, "--epochs", str(sizes.expert_epochs), *real(folder), *plain, "-o", str(output)]

    def evaluate(folder: Path, output: Path) -> list[str]:
        words = ["evaluate", str(folder / "set.h5"), "--networks", sizes.network, "--baselines", "random"]
        words += ["--repeats", str(students), "--epochs", str(sizes.student_epochs), "--no-save"]
        return [*words, *real(folder), "--json", str(output.with_suffix(".json"))]

    def label(folder: Path, output: Path) -> list[str]:
        words = ["label", str(folder / "set.h5"), "--teacher", f"{folder / 'teacher.h5'}#0"]
        return [*words, "--views", str(sizes.views), "-o", str(output)]

    def distil(folder: Path, output: Path, *method: str) -> list[str]:
        words = ["distill", *method, "--network", sizes.network, "--ipc", str(sizes.ipc)]
        return [*words, *real(folder), *plain, "-o", str(output)]

    def match(folder: Path, output: Path) -> list[str]:
        words = ["--method", "dm", "--iterations", str(sizes.iterations)]
        return distil(folder, output, *words, "--set", "engine.batch_real=100")

    def follow(folder: Path, output: Path) -> list[str]:
        words = ["--method", "mtt", "--iterations", str(sizes.trajectories), "--experts"]
        words += [str(folder / "teacher.h5"), "--set", "engine.steps=5", "--set", "engine.start.most=1"]
        words += ["--set", "engine.expert_epochs=1", "--set", "engine.student.learning.lr=0"]
        return distil(folder, output, *words, "--set", "data.zca=false")

    return [
        Case("distribution", sizes.iterations, "iterations", match),
        Case("trajectory", sizes.trajectories, "iterations", follow),
        Case("experts", experts * sizes.expert_epochs * sizes.real, "images", train),
        Case("evaluate", 2 * students * sizes.student_epochs * images, "images", evaluate),
        Case("label", sizes.views * images, "views", label),
    ]


def real(folder: Path) -> list[str]:
    """Return the words that name the real images."""
    return ["--dataset", f"npz:{folder / 'real.npz'}"]


def prepare(folder: Path, sizes: Sizes) -> None:
    """Write what commands read: real images, a set, and a teacher."""
    draws = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", sizes.real), ("test", sizes.real // 2)):
        arrays[f"x_{split}"] = draws.integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % CLASSES
    np.savez(folder / "real.npz", **arrays)
    name = f"npz:{folder / 'real.npz'}"
    teacher = dsdistill.train_experts(
        folder / "teacher.h5",
        dataset=name,
        recipe="ncfm",
        network=sizes.network,
        count=1,
        epochs=1,
        device="cpu",
        overrides=["compute.compile=false"],
    )
    labels = torch.arange(CLASSES).repeat_interleave(sizes.ipc)
    images = torch.rand(len(labels), 1, SIDE, SIDE, generator=generator(0, "images"))
    about = {"dataset": name, "network": sizes.network, "fingerprint": teacher.metadata.fingerprint}
    preprocess = teacher.metadata.preprocess
    assert isinstance(preprocess, Standardise)
    content = DistilledSet(images, labels, teacher.metadata.classes, preprocess, attributes=about)
    set_file.write(folder / "set.h5", content)


def seconds_of(case: Case, folder: Path, processes: int) -> float:
    """Run a command in so many processes, and return the seconds that it takes."""
    with tempfile.TemporaryDirectory() as outputs:
        output, result = Path(outputs) / "output.h5", Path(outputs) / "seconds"
        script = [str(Path(__file__)), "--timed", str(result), *case.words(folder, output)]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        variables = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        words = [sys.executable, *(launcher if processes > 1 else []), *script]
        process = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
        if not result.exists():
            raise RuntimeError(f"{case.name} with {processes} processes failed:\n{process.stderr}")
        return float(result.read_text())


def seconds_apart(case: Case, folder: Path, processes: int) -> float:
    """Run a command in so many separate processes at once, and return the seconds of the slowest."""
    with ThreadPoolExecutor(processes) as pool:
        return max(pool.map(lambda _: seconds_of(case, folder, 1), range(processes)))


def timed(result: Path, words: Sequence[str]) -> None:
    """Run a command in this process, or its share of it, and have the first one write the seconds."""
    from dsdistill.cli import main as command
    from dsdistill.runtime.ranks import current

    for name in ("distill", "train_experts", "evaluate", "label"):
        getattr(dsdistill, name)  # commands import it when they begin
    ranks = current()
    ranks.wait()
    since = time.perf_counter()
    code = command([*words, "--quiet"])
    seconds = time.perf_counter() - since
    if code == 0 and ranks.is_first:
        result.write_text(repr(seconds))
    sys.exit(code)


def measure(chosen: Sequence[Case], sizes: Sizes, processes: int, rounds: int) -> list[dict[str, Any]]:
    """Time every kind of work in turn, and return a row for each."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), sizes)
        for case in chosen:
            measured = [
                tuple(
                    of(case, Path(name), count)
                    for of, count in ((seconds_of, 1), (seconds_of, processes), (seconds_apart, processes))
                )
                for _ in range(rounds)
            ]
            rows.append(row(case, measured, processes))
            print(sentence(rows[-1]), flush=True)
    return rows


def row(case: Case, measured: Sequence[tuple[float, ...]], processes: int) -> dict[str, Any]:
    """Return what is known of a kind of work.

    Args:
        measured: the seconds of one process, of several, and of as many that do not share the work.
    """
    alone, together, _ = (statistics.median(each) for each in zip(*measured, strict=True))
    efficiencies = [one / (processes * several) for one, several, _ in measured]
    possible = [one / apart for one, _, apart in measured]
    return {
        "case": case.name,
        "amount": case.amount,
        "unit": case.unit,
        "processes": processes,
        "rounds": len(measured),
        "seconds_of_one": alone,
        "seconds": together,
        "a_second_of_one": case.amount / alone,
        "a_second": case.amount / together,
        "efficiency": statistics.median(efficiencies),
        "efficiencies": sorted(efficiencies),
        "possible": statistics.median(possible),
    }


def sentence(row: dict[str, Any]) -> str:
    """Return a row, for people."""
    rates = f"{row['a_second_of_one']:,.4g} -> {row['a_second']:,.4g} {row['unit']} a second"
    low, high = min(row["efficiencies"]), max(row["efficiencies"])
    spread = f"({100 * low:.0f}..{100 * high:.0f} %)"
    most = f"the machine allows {100 * row['possible']:.0f} %"
    return f"{row['case']:12s} {rates}, efficiency {100 * row['efficiency']:.0f} % {spread}; {most}"


def main() -> None:
    if sys.argv[1:2] == ["--timed"]:
        return timed(Path(sys.argv[2]), sys.argv[3:])
    names = [case.name for case in cases(FULL)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", help=f"some of {', '.join(names)}, with commas between them")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="next to nothing to do; nothing is written")
    args = parser.parse_args()
    only = args.only.split(",") if args.only else names
    if unknown := set(only) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    sizes = QUICK if args.quick else FULL
    load = os.getloadavg()[0]  # above about 0.5 something else was running
    chosen = [case for case in cases(sizes) if case.name in only]
    rows = measure(chosen, sizes, args.processes, 1 if args.quick else args.rounds)
    if not args.quick:
        file = ARTIFACTS / "scaling.json"
        rows = [{**each, "load_before": load, "date": datetime.date.today().isoformat()} for each in rows]
        write_record(file, [*kept(file, only), *rows], cores=os.cpu_count())


def kept(file: Path, measured: Collection[str]) -> list[dict[str, Any]]:
    """Return the rows of a record that were not measured again."""
    if not file.exists():
        return []
    return [row for row in json.loads(file.read_text())["rows"] if row["case"] not in measured]


if __name__ == "__main__":
    main()
