"""Real runs and their tables: each suite distils, evaluates and writes what it found to artifacts/.

    python benchmarks/accuracy.py dm                  Fashion-MNIST, DM, IPC 1 and 10
    python benchmarks/accuracy.py gradient-ipc1       DSA and IDC under the protocols of both; -ipc10
    python benchmarks/accuracy.py distribution-ipc1   DataDAM, NCFM, IDM and NCFM's minmax; -ipc10
    python benchmarks/accuracy.py adversary           NCFM on digits: an adversary that reaches near or far
    python benchmarks/accuracy.py trajectory-ipc1     MTT, DATM and AST along experts of ten epochs; -ipc10
    python benchmarks/accuracy.py fyi-ipc1            DM and DSA with and without mirror images; -ipc10
    python benchmarks/accuracy.py precision           does bf16 change what DM reaches? three seeds
    python benchmarks/accuracy.py gradient-precision  does it change what DSA reaches?
    python benchmarks/accuracy.py distribution-precision   and DataDAM, IDM and NCFM?
    python benchmarks/accuracy.py evaluator           does a bf16 evaluator change the verdict?

A suite (benchmarks/real_runs.py) is a list of commands, printed as they run. Stopped, it goes on where it
was: runs resume from their checkpoints (kept in runs/, outside git) and finished evaluations are not
repeated. What other commands made than the suite has now does not count as done. With --jobs 2 two sets are
made at a time, each on its share of the cores: on a small CPU that takes less time in all, while each set
takes more. With --cells only those are made, and the table keeps what it says of the others: so that a
suite can be made bit by bit, on several machines too.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.real_runs import ARTIFACTS, ROOT, RUNS, SUITES, Cell, Step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--jobs", type=int, default=1, help="sets made at a time")
    parser.add_argument("--cells", nargs="+", metavar="NAME", help="sets to make, without .h5; default: all")
    args = parser.parse_args()
    RUNS.mkdir(exist_ok=True)
    suite = SUITES[args.suite]()
    names = [cell.name for cell in suite]
    if unknown := set(args.cells or ()) - set(names):
        parser.error(f"{args.suite} has no {', '.join(sorted(unknown))}, but {', '.join(names)}")
    cells = [cell for cell in suite if cell.name in (args.cells or names)]
    for experts in {cell.experts for cell in cells if cell.experts}:
        run([experts.step])  # once, before cells at a time want them
    make(cells, args.jobs)
    for cell in cells:
        if cell.keep:
            shutil.copy(cell.file, ARTIFACTS)
    record = ARTIFACTS / f"accuracy-{args.suite}.json"
    rows = [row for cell in suite for row in (results(cell) if cell in cells else recorded(cell, record))]
    command = f"python benchmarks/accuracy.py {args.suite}" + f" --jobs {args.jobs}" * (args.jobs > 1)
    table = _table(command, rows, names)
    record.write_text(json.dumps({"command": command, "rows": rows}, indent=1) + "\n")
    record.with_suffix(".md").write_text(table)
    print(table)


def make(cells: Iterable[Cell], jobs: int) -> None:
    """Make and judge so many cells at a time; where a command fails or is stopped, no other begins."""
    stopped = threading.Event()

    def made(cell: Cell) -> None:
        if not stopped.is_set():
            try:
                run(cell.steps(), jobs)
            except BaseException:
                stopped.set()
                raise

    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(made, cells):
            pass  # what went wrong is raised here


def run(steps: Iterable[Step], jobs: int = 1) -> None:
    """Run the commands that are not done yet, one after the other, on one of so many shares of the cores.

    Each reads what those before it made: its file counts as done where the same commands made it and them,
    which is written beside it, and where none of them has to run again.
    """
    share = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))} if jobs > 1 else {}
    chain, told = [], ""
    for command, done in steps:
        told += command.replace(f"{done.parent}/", "") + "\n"
        chain.append((command, done, done.with_name(f"{done.name}.by"), told))
    while chain and _is_done(*chain[0][1:]):
        chain.pop(0)
    for _, _, by, _ in chain:  # all of them at once: stopped half-way, none of the later ones counts
        by.unlink(missing_ok=True)
    for command, _, by, told in chain:
        print(f"$ dsdistill {command}", flush=True)
        words = [sys.executable, "-m", "dsdistill", *shlex.split(command)]
        subprocess.run(words, check=True, cwd=ROOT, env=os.environ | share)
        by.write_text(told)


def _is_done(done: Path, by: Path, told: str) -> bool:
    return done.exists() and by.exists() and by.read_text() == told


def results(cell: Cell) -> list[dict[str, Any]]:
    """Return one record per row of each evaluation, with what it was made by."""
    found = []
    for name, options in cell.evaluations.items():
        report = json.loads(cell.result(name).read_text())
        keys = ("dataset", "epochs", "precision", "machine", "date", "conditions", "cost", "distil_machine")
        about = {key: report.get(key) for key in keys} | _commands(cell, options)
        found += [{"cell": cell.name, "evaluation": name, **row, **about} for row in report["rows"]]
    return found


def recorded(cell: Cell, record: Path) -> list[dict[str, Any]]:
    """Return what a table's record says of a cell, as ``results``: nothing that other commands made."""
    rows = json.loads(record.read_text())["rows"] if record.exists() else []
    made = {name: _commands(cell, options) for name, options in cell.evaluations.items()}
    return [
        row
        for row in rows
        if row["cell"] == cell.name and made.get(row["evaluation"], {"": None}).items() <= row.items()
    ]


def _commands(cell: Cell, options: str) -> dict[str, str]:
    """Return the commands behind an evaluation with these options, files without their folder."""
    with_experts = f" --experts {cell.experts.name}.h5" if cell.experts else ""
    commands = {
        "distilled_by": f"distill -o {cell.file.name} {cell.distil}{with_experts}",
        "evaluated_by": f"evaluate {cell.file.name} {options}",
    }
    if cell.experts:
        commands["experts_by"] = f"experts -o {cell.experts.file.name} {cell.experts.options}"
    return commands


def _table(command: str, rows: list[dict[str, Any]], names: list[str]) -> str:
    machines = sorted({row[key] for row in rows for key in ("machine", "distil_machine") if row[key]})
    lines = [
        f"Written by `{command}` on {' and '.join(machines)}, {dated(rows)}. Accuracy in percent,",
        "last epoch on the test set, mean ± sample standard deviation over fresh students.",
        "",
        "| run | evaluation | set | student | protocol | epochs | accuracy % | students | distilled in |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spent = f"{row['cost']['distil_seconds'] / 60:.0f} min" if row["set"] == "distilled" else "-"
        lines.append(
            f"| {row['cell']} | {row['evaluation']} | {row['set']} | {row['network']} | {row['protocol']} "
            f"| {row['epochs']} | {spread(row['values'])} | {len(row['values'])} | {spent} |"
        )
    if missing := [name for name in names if name not in {row["cell"] for row in rows}]:
        lines += ["", f"Not made yet: {', '.join(missing)}."]
    if seeds := over_seeds(rows):
        lines += ["", "Over seeds, mean ± sample standard deviation of the means above:", ""]
    for name, means in seeds.items():
        gain = gains(name, seeds)
        more = f"; {spread(gain, '+')} more than without, seed by seed" if gain else ""
        lines.append(f"- {name}: {spread(means)} ({len(means)} seeds{more})")
    lines += ["", "Each set was made and judged by:", ""]
    commands = [
        row[key] for key in ("experts_by", "distilled_by", "evaluated_by") for row in rows if key in row
    ]
    lines += [f"- `dsdistill {command}`" for command in dict.fromkeys(commands)]
    return "\n".join([*lines, ""])


def over_seeds(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return the means of runs that differ in their seed alone, in its order, by what they share."""
    seeds: dict[str, list[float]] = {}
    for row in rows:
        if "-seed" in row["cell"] + row["evaluation"]:
            stems = [row[key].split("-seed")[0] for key in ("cell", "evaluation")]
            seeds.setdefault(f"{stems[0]}, {stems[1]}, {row['set']}", []).append(row["mean"])
    return seeds


def gains(name: str, seeds: dict[str, list[float]]) -> list[float]:
    """Return by how much runs with mirror images are better than those without, seed by seed."""
    without = seeds.get(name.replace("flip-true", "flip-false"), []) if "flip-true" in name else []
    return [one - other for one, other in zip(seeds[name], without, strict=True)] if without else []


def dated(rows: list[dict[str, Any]]) -> str:
    """Write the first and the last day on which something was judged."""
    days = sorted({row["date"][:10] for row in rows})
    return " to ".join(dict.fromkeys([days[0], days[-1]]))


def spread(values: list[float], sign: str = "") -> str:
    """Write mean ± sample standard deviation, 0 for one value; with ``sign`` "+" the mean has a sign."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{sign}.2f} ± {std:.2f}"


if __name__ == "__main__":
    main()
