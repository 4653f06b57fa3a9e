"""Real runs and their tables: each suite distils, evaluates and writes what it found to artifacts/.

    python benchmarks/accuracy.py dm          Fashion-MNIST, DM, IPC 1 and 10, protocol dm, 3 students
    python benchmarks/accuracy.py gradient-ipc1   Fashion-MNIST, DSA and IDC, protocols dsa and idc; -ipc10
    python benchmarks/accuracy.py gradient-precision   do bf16 real gradients change what DSA reaches?
    python benchmarks/accuracy.py precision   does bf16 change what DM reaches? three seeds, bf16 and fp32
    python benchmarks/accuracy.py evaluator   does a bf16 evaluator change the verdict? three seeds

A suite is a list of commands, printed as they run. Stopped, it goes on where it was: runs resume from their
checkpoints (kept in runs/, outside git) and finished evaluations are not repeated.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ARTIFACTS, RUNS = ROOT / "artifacts", ROOT / "runs"


@dataclass(frozen=True)
class Cell:
    """One distillation and the evaluations of what it made."""

    name: str
    distil: str
    evaluations: dict[str, str]
    keep: bool = False
    """Whether the set itself is copied to artifacts/."""

    @property
    def file(self) -> Path:
        """Where the set is made; what is in artifacts/ never counts as done."""
        return RUNS / f"{self.name}.h5"

    def commands(self) -> list[tuple[str, Path]]:
        """Return each command with the file that shows it is done."""
        run = f"{RUNS / self.name}.run"
        made = [(f"distill -o {self.file} --run-dir {run} --resume {self.distil}", self.file)]
        for name, options in self.evaluations.items():
            result = RUNS / f"{self.name}.{name}.json"
            made.append((f"evaluate {self.file} --json {result} {options}", result))
        return made

    def results(self) -> list[dict[str, Any]]:
        """Return one record per evaluated row, with what it was made by."""
        found = []
        for name, options in self.evaluations.items():
            report = json.loads((RUNS / f"{self.name}.{name}.json").read_text())
            about = {
                key: report[key] for key in ("dataset", "epochs", "precision", "machine", "date", "cost")
            }
            commands = {"distilled_by": self.distil, "evaluated_by": options}
            found += [
                {"cell": self.name, "evaluation": name, **row, **about, **commands} for row in report["rows"]
            ]
        return found


def _dm() -> list[Cell]:
    return [
        Cell(
            f"fashion-mnist-dm-ipc{ipc}",
            f"--dataset fashion-mnist --method dm --ipc {ipc} --iterations {iterations} --seed 0",
            {"dm": "--protocol dm --repeats 3 --seed 0"},
            keep=True,
        )
        for ipc, iterations in ((10, 2000), (1, 1000))  # half an hour and a quarter on two cores
    ]


def _gradient(ipc: int, iterations: dict[str, int]) -> list[Cell]:
    """Half an hour each on two cores, or a little less; the papers take many times as long."""
    cells = []
    for method, steps in iterations.items():
        # Random selection is the same for both methods: it is judged once.
        baseline = "" if method == "dsa" else " --baselines ''"
        evaluations = {name: f"--protocol {name} --repeats 3 --seed 0{baseline}" for name in ("dsa", "idc")}
        distil = f"--dataset fashion-mnist --method {method} --ipc {ipc} --iterations {steps} --seed 0"
        cells.append(Cell(f"fashion-mnist-{method}-ipc{ipc}", distil, evaluations, keep=True))
    return cells


def _gradient_precision() -> list[Cell]:
    return [
        Cell(
            f"gradient-{precision}-seed{seed}",
            f"--dataset fashion-mnist --method dsa --ipc 10 --iterations 20 --seed {seed} "
            f"--set compute.precision={precision} --set compute.compile=true",
            {"dsa": f"--protocol dsa --repeats 2 --epochs 300 --baselines '' --seed {seed}"},
        )
        for seed in range(3)
        for precision in ("bf16", "fp32")
    ]


def _at_precision(precision: str, seed: int, evaluations: dict[str, str]) -> Cell:
    return Cell(
        f"precision-{precision}-seed{seed}",
        f"--dataset fashion-mnist --method dm --ipc 10 --iterations 60 --seed {seed} "
        f"--set compute.precision={precision} --set compute.compile=true",
        evaluations,
    )


def _precision() -> list[Cell]:
    judged = "--protocol dm --repeats 2 --epochs 300 --baselines ''"
    return [
        _at_precision(precision, seed, {"dm": f"{judged} --seed {seed}"})
        for seed in range(3)
        for precision in ("bf16", "fp32")
    ]


def _evaluator() -> list[Cell]:
    judged = "--protocol dm --repeats 1 --epochs 300 --baselines ''"
    evaluations = {
        f"{precision}-seed{seed}": f"{judged} --precision {precision} --seed {seed}"
        for seed in range(3)
        for precision in ("bf16", "fp32")
    }
    return [_at_precision("bf16", 0, evaluations)]


SUITES = {
    "dm": _dm,
    "gradient-ipc1": lambda: _gradient(1, {"idc": 800, "dsa": 500}),
    "gradient-ipc10": lambda: _gradient(10, {"dsa": 170, "idc": 350}),
    "gradient-precision": _gradient_precision,
    "precision": _precision,
    "evaluator": _evaluator,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    suite = parser.parse_args().suite
    RUNS.mkdir(exist_ok=True)
    cells = SUITES[suite]()
    for cell in cells:
        for command, done in cell.commands():
            if not done.exists():
                print(f"$ dsdistill {command}", flush=True)
                words = [sys.executable, "-m", "dsdistill", *shlex.split(command)]
                subprocess.run(words, check=True, cwd=ROOT)
    for cell in cells:
        if cell.keep:
            shutil.copy(cell.file, ARTIFACTS)
    rows = [row for cell in cells for row in cell.results()]
    command = f"python benchmarks/accuracy.py {suite}"
    table = _table(command, rows)
    record = json.dumps({"command": command, "rows": rows}, indent=1)
    (ARTIFACTS / f"accuracy-{suite}.json").write_text(record + "\n")
    (ARTIFACTS / f"accuracy-{suite}.md").write_text(table)
    print(table)


def _table(command: str, rows: list[dict[str, Any]]) -> str:
    lines = [
        f"Written by `{command}` on {rows[0]['machine']}, {rows[-1]['date'][:10]}. Accuracy in percent,",
        "last epoch on the test set, mean ± sample standard deviation over fresh students.",
        "",
        "| run | evaluation | set | student | protocol | epochs | accuracy % | students | distilled in |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spent = f"{row['cost']['distil_seconds'] / 60:.0f} min" if row["set"] == "distilled" else "-"
        lines.append(
            f"| {row['cell']} | {row['evaluation']} | {row['set']} | {row['network']} | {row['protocol']} "
            f"| {row['epochs']} | {row['mean']:.2f} ± {row['std']:.2f} | {len(row['values'])} | {spent} |"
        )
    seeds: dict[str, list[float]] = {}
    for row in rows:
        if "-seed" in row["cell"] + row["evaluation"]:
            stems = [row[key].split("-seed")[0] for key in ("cell", "evaluation")]
            seeds.setdefault(f"{stems[0]}, {stems[1]}, {row['set']}", []).append(row["mean"])
    if seeds:
        lines += ["", "Over seeds, mean ± sample standard deviation of the means above:", ""]
    for name, means in seeds.items():
        lines.append(
            f"- {name}: {statistics.mean(means):.2f} ± {statistics.stdev(means):.2f} ({len(means)} seeds)"
        )
    lines += ["", "Each set was made and judged by:", ""]
    made = {row["cell"]: f"`dsdistill distill {row['distilled_by']}`" for row in rows}
    judged = {(row["cell"], row["evaluation"]): f"`dsdistill evaluate {row['evaluated_by']}`" for row in rows}
    lines += [f"- {cell}: {command}" for cell, command in made.items()]
    lines += [f"- {cell}, {evaluation}: {command}" for (cell, evaluation), command in judged.items()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
