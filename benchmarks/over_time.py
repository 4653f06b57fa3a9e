"""Accuracy against minutes: how good the set of a method is after one minute, after two, and so on.

    python benchmarks/over_time.py FOLDER --ipc 10                      ten minutes of each method
    python benchmarks/over_time.py FOLDER --ipc 10 --minutes 30 --methods dsdistill,dm
    python benchmarks/over_time.py FOLDER --quick                       digits, seconds: whether it works

Each method has the minutes of the budget on this machine, its experts' training included, and keeps its set
at ten moments of its loop. Students are trained on each of these sets, and on as many real images: random
ones, and herded ones. The test images judge, and nothing is chosen by them. Finished runs and evaluations
stay in FOLDER, and the same command goes on. Nothing else may run during the distillations. Rows go to
artifacts/over-time-ipc10.json, and the chart to artifacts/over-time-ipc10.svg.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

import dsdistill
from benchmarks.chart import BLUE, FAINT, GREY, STYLE
from benchmarks.common import ARTIFACTS, write_record
from dsdistill.storage import set_file

METHODS = ("dsdistill", "dm", "ncfm", "datm")
REAL = ("random", "herding")
MOMENTS = 10
EPOCHS = {1: 600, 10: 200, 50: 60}
"""Of a student, by images per class; of others, as for the largest of these."""
COLOURS = {"dsdistill": BLUE, "dm": "#8250df", "ncfm": "#1a7f37", "datm": "#bc4c00"}
Row = Mapping[str, Any]


def main() -> None:
    """Distil, evaluate, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the runs")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each method")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--network", default="convnet-w64", help="of the students")
    parser.add_argument("--students", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="digits, seconds; writes no record")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    dataset, minutes = "fashion-mnist", arguments.minutes
    epochs = EPOCHS.get(arguments.ipc, EPOCHS[max(EPOCHS)])
    students = {"networks": arguments.network, "repeats": arguments.students}
    if arguments.quick:
        dataset, minutes, epochs, students = "digits", 0.2, 2, {"networks": "convnet2-w8", "repeats": 1}
    rows: list[Row] = []
    for place, method in enumerate(arguments.methods.split(",")):
        folder = arguments.folder.resolve() / f"{method}-ipc{arguments.ipc}-{minutes:g}min"
        sets = distilled(folder, dataset, method, arguments.ipc, minutes)
        shared = {"dataset": dataset, "ipc": arguments.ipc, "epochs": epochs}
        for number, (file, at) in enumerate(sets):
            with_real = place == 0 and number == 0
            report = dsdistill.evaluate(
                file,
                epochs=epochs,
                protocol="dm",
                baselines=REAL if with_real else (),
                resume=True,
                **students,
            )
            for row in report.rows:
                of_set = row.set == "distilled"
                names = {"set": method if of_set else row.set, "minutes": at if of_set else 0.0}
                rows.append(shared | names | {"mean": row.mean, "std": row.std, "values": row.values})
                print("{set:10s}{minutes:6.1f} min  {mean:6.2f} ± {std:.2f}".format(**rows[-1]), flush=True)
    if not arguments.quick:
        file = ARTIFACTS / f"over-time-ipc{arguments.ipc}.json"
        write_record(file, rows, budget_minutes=minutes, students=students)
        title = f"Fashion-MNIST, {arguments.ipc} images per class: accuracy against minutes on this machine"
        draw(rows, title).savefig(
            file.with_suffix(".svg"), metadata={"Date": None, "Creator": "python benchmarks/over_time.py"}
        )
        print(f"wrote {file} and its chart")


def distilled(folder: Path, dataset: str, method: str, ipc: int, minutes: float) -> list[tuple[Path, float]]:
    """Distil, unless that is done, and return the sets with the minutes that each had, experts included.

    Args:
        folder: of this run; its experts are trained for it alone.
        minutes: the budget.
    """
    output, run = folder / "set.h5", folder / "run"
    if not output.exists():
        folder.mkdir(exist_ok=True)
        os.environ["DSDISTILL_CACHE"] = str(folder / "cache")
        dsdistill.distill(
            output,
            dataset=dataset,
            method=method,
            ipc=ipc,
            budget=f"{60 * minutes:g}s",
            run_dir=run,
            options={"checkpoint": {"snapshots": MOMENTS}},
            overwrite=True,
        )
    files = [*sorted(run.glob("snapshot-*.h5")), output]
    seconds = [float(set_file.read(file).attributes["seconds"]) for file in files]
    before = 60 * minutes - seconds[-1]  # the experts had what the loop did not
    return [(file, (before + each) / 60) for file, each in zip(files, seconds, strict=True)]


def draw(rows: Sequence[Row], title: str) -> Figure:
    """Draw a line for each method with the spread of its students, and one across for real images."""
    plt.rcParams.update(STYLE)
    picture, panel = plt.subplots(figsize=(7.2, 4.2))
    names = list(dict.fromkeys(row["set"] for row in rows))
    end = max(row["minutes"] for row in rows)
    for name in names:
        points = sorted((row for row in rows if row["set"] == name), key=lambda row: row["minutes"])
        colour = COLOURS.get(name, GREY)
        if name in REAL:
            panel.axhline(points[0]["mean"], color=GREY, lw=1.0, ls=(0, (4, 3)))
        else:
            at, means = [row["minutes"] for row in points], [row["mean"] for row in points]
            spread = [row["std"] for row in points]
            panel.errorbar(at, means, yerr=spread, fmt="o-", ms=4, color=colour, capsize=2, lw=1.4)
        panel.annotate(
            f"{name} {points[-1]['mean']:.1f}",
            (end, points[-1]["mean"]),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
    panel.set_xlim(0, 1.18 * end)
    panel.set_xlabel("minutes, the training of experts included")
    panel.set_ylabel("test accuracy %")
    panel.grid(axis="y", color=FAINT, lw=0.6)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    first = rows[0]
    students = "students" if (count := len(first["values"])) > 1 else "student"
    picture.suptitle(title, x=0.012, y=0.98, ha="left", fontsize=10.5, fontweight="bold")
    note = (
        f"Mean ± standard deviation of {count} {students}, {first['epochs']} epochs. "
        f"Grey: as many real images (highest {max(_means(rows, REAL)):.1f})."
    )
    picture.text(0.012, 0.915, note, ha="left", va="top", fontsize=8, color=GREY)
    picture.tight_layout(rect=(0, 0, 1, 0.9))
    return picture


def _means(rows: Sequence[Row], names: Sequence[str]) -> list[float]:
    return [statistics.mean(row["values"]) for row in rows if row["set"] in names]


if __name__ == "__main__":
    main()
