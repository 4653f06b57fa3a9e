"""Write the results of a suite to artifacts/: accuracy-<suite>.md for people, .json for benchmarks/chart.py.

    dsdistill bench benchmarks/suites/dm.toml -o results/dm
    python benchmarks/record.py results/dm --sets

A folder can hold several suites (those of benchmarks/suites/ that share experts): each has files of its own.
With --sets the distilled sets of seed 0 are copied as well, as <data set>-<method>-ipc<N>.h5.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import common
from dsdistill.bench import tables
from dsdistill.bench.collection import collect
from dsdistill.bench.results import CellResult

OF_REPORT = ("dataset", "precision", "machine", "date", "conditions", "cost", "distil_machine")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, help="a folder of results of dsdistill bench")
    parser.add_argument("--sets", action="store_true", help="copy the distilled sets too")
    args = parser.parse_args()
    results, problems = collect(args.results)
    for suite in dict.fromkeys(cell.suite for cell in results):
        cells = [cell for cell in results if cell.suite == suite]
        command = f"dsdistill bench benchmarks/suites/{suite}.toml -o {args.results}"
        command += f" && python benchmarks/record.py {args.results}" + " --sets" * args.sets
        rows = [row for cell in cells for row in records(cell)]
        path = common.ARTIFACTS / f"accuracy-{suite}.json"
        path.write_text(json.dumps({"command": command, "rows": rows}, indent=1) + "\n")
        text = table(command, cells, rows, problems)
        path.with_suffix(".md").write_text(text)
        print(text)
        for cell in cells if args.sets else ():
            if cell.folder and cell.seed == 0:
                name = f"{cell.dataset}-{cell.method}-ipc{cell.ipc}.h5"
                shutil.copy(cell.folder / cell.file, common.ARTIFACTS / name)


def records(cell: CellResult) -> Iterator[dict[str, Any]]:
    """Yield one record per row of each evaluation, with the commands behind it."""
    commands = [command.removeprefix("dsdistill ") for command in cell.commands]
    distil, evaluations = commands[: -len(cell.evaluations)], commands[-len(cell.evaluations) :]
    distil = [command for command in distil if not command.startswith("encode ")]
    by = dict(zip(("distilled_by", "experts_by"), reversed(distil), strict=False))
    for evaluation, command in zip(cell.evaluations, evaluations, strict=True):
        about = {key: evaluation.report.get(key) for key in OF_REPORT} | by | {"evaluated_by": command}
        for row in evaluation.rows:
            place: dict[str, Any] = {"cell": cell.cell, "evaluation": evaluation.name}
            place |= {"bits": evaluation.bits} if cell.is_copy(evaluation) else {}
            yield place | dataclasses.asdict(row) | about


def table(
    command: str, cells: Sequence[CellResult], rows: Sequence[dict[str, Any]], problems: Sequence[str]
) -> str:
    """Return the page of one suite in Markdown."""
    machines = sorted({row[key] for row in rows for key in ("machine", "distil_machine") if row[key]})
    dates = common.date_range(row["date"] for row in rows)
    parts = " and ".join(f"`{part}`" for part in command.split(" && "))
    head = f"Written by {parts} on {' and '.join(machines)}, {dates}."
    commands = dict.fromkeys(command for cell in cells for command in cell.commands)
    listed = "\n".join(f"- `{each}`" for each in commands)
    return f"{head}\n\n{tables.markdown(cells, problems)}\nThe commands of the suite:\n\n{listed}\n"


if __name__ == "__main__":
    main()
