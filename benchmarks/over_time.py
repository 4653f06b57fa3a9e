"""Accuracy against minutes: how good the set of a method is after one minute, after two, and so on.

    python benchmarks/over_time.py FOLDER --ipc 10                      ten minutes of each method
    python benchmarks/over_time.py FOLDER --ipc 10 --minutes 30 --methods dsdistill,dm
    python benchmarks/over_time.py FOLDER --quick                       digits, seconds: whether it works

Each method has the minutes of the budget on this machine, its experts' training included, and keeps its set
at ten moments of its loop. Each run has a process and a cache of its own, so that it compiles and trains for
itself. Minutes are those of the clock from the call on; the last iteration may end after the budget.

Students are trained on each of these sets, and on as many real images: random ones, and herded ones. Where a
set stores soft labels, as DATM's does, it has two curves: of students that learn from these (SL), and of
others that learn from hard labels (HL), as all students of other sets and of real images do. The test images
judge, and nothing is chosen by them. Finished runs and evaluations stay in FOLDER, and the same command goes
on. A run that was stopped begins anew. Nothing else may run during the distillations. Rows go to
artifacts/over-time-ipc10.json, and the chart to artifacts/over-time-ipc10.svg.
"""

from __future__ import annotations

import argparse
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
from benchmarks import isolation
from benchmarks.chart import BLUE, FAINT, GREY, STYLE
from benchmarks.common import ARTIFACTS, write_record
from dsdistill.evaluation.rows import DISTILLED, DISTILLED_HARD
from dsdistill.storage import set_file

METHODS = ("dsdistill", "dm", "ncfm", "datm")
REAL = ("random", "herding")
MOMENTS = 10
EPOCHS = {1: 600, 10: 200, 50: 60}
"""Of a student, by images per class; of others, as for the largest of these."""
REGIMES = {
    "HL": "students learn from hard labels",
    "SL": "students learn from soft labels that the set stores",
}
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
    wall_seconds: dict[str, float] = {}
    for place, method in enumerate(arguments.methods.split(",")):
        folder = arguments.folder.resolve() / f"{method}-ipc{arguments.ipc}-{minutes:g}min"
        sets = distilled(folder, dataset, method, arguments.ipc, minutes)
        wall_seconds[method] = 60 * sets[-1][1]
        shared = {"dataset": dataset, "ipc": arguments.ipc, "epochs": epochs}
        for number, (file, at) in enumerate(sets):
            real = REAL if place == number == 0 else ()
            for row in evaluated(file, method, at, real, epochs=epochs, **students):
                rows.append(shared | row)
                print(
                    "{set:10s}{regime:3s}{minutes:6.1f} min  {mean:6.2f} ± {std:.2f}".format(**rows[-1]),
                    flush=True,
                )
    if not arguments.quick:
        file = ARTIFACTS / f"over-time-ipc{arguments.ipc}.json"
        about = {"budget_minutes": minutes, "wall_seconds": wall_seconds, "regimes": REGIMES}
        write_record(file, rows, students=students, **about)
        title = f"Fashion-MNIST, {arguments.ipc} images per class: accuracy against minutes on this machine"
        draw(rows, title).savefig(
            file.with_suffix(".svg"), metadata={"Date": None, "Creator": "python benchmarks/over_time.py"}
        )
        print(f"wrote {file} and its chart")


def distilled(folder: Path, dataset: str, method: str, ipc: int, minutes: float) -> list[tuple[Path, float]]:
    """Distil, unless that is done, and return the sets with the minutes that each had, experts included.

    They are those of the clock. What did not pass in the loop counts as before it, the last writing too.

    Args:
        folder: of this run; its experts are trained for it alone.
        minutes: the budget.
    """
    output, run = folder / "set.h5", folder / "run"
    folder.mkdir(exist_ok=True)
    wall = isolation.distil(
        output,
        dataset=dataset,
        method=method,
        ipc=ipc,
        budget=f"{60 * minutes:g}s",
        run_dir=run,
        options={"checkpoint": {"snapshots": MOMENTS}},
    )
    files = [*sorted(run.glob("snapshot-*.h5")), output]
    seconds = [float(set_file.read(file).attributes["seconds"]) for file in files]
    return [(file, (wall - seconds[-1] + each) / 60) for file, each in zip(files, seconds, strict=True)]


def evaluated(
    file: Path, method: str, minutes: float, baselines: Sequence[str], **students: Any
) -> list[dict[str, Any]]:
    """Train students on a set, on real images, and on a set's hard labels if it has soft ones; return rows.

    Args:
        minutes: that the set had; real images have none.
        baselines: real images.
        students: of `dsdistill.evaluate`.
    """
    has_soft_labels = set_file.read(file).soft_labels is not None
    names = [*baselines, *[DISTILLED_HARD] * has_soft_labels]
    report = dsdistill.evaluate(file, protocol="dm", baselines=names, resume=True, **students)
    rows = []
    for row in report.rows:
        of_set = row.set in (DISTILLED, DISTILLED_HARD)
        place = {"set": method if of_set else row.set, "minutes": minutes if of_set else 0.0}
        rows.append(place | {"regime": row.regime, "mean": row.mean, "std": row.std, "values": row.values})
    return rows


def draw(rows: Sequence[Row], title: str) -> Figure:
    """Draw a line for each method and regime with the spread of students, and one across for real images."""
    plt.rcParams.update(STYLE)
    picture, panel = plt.subplots(figsize=(7.2, 4.2))
    curves = list(dict.fromkeys((row["set"], row["regime"]) for row in rows))
    end = max(row["minutes"] for row in rows)
    for name, regime in curves:
        points = sorted(
            (row for row in rows if (row["set"], row["regime"]) == (name, regime)),
            key=lambda row: row["minutes"],
        )
        is_soft = regime != "HL"
        colour = COLOURS.get(name, GREY)
        if name in REAL:
            panel.axhline(points[0]["mean"], color=GREY, lw=1.0, ls=(0, (4, 3)))
        else:
            at, means = [row["minutes"] for row in points], [row["mean"] for row in points]
            spread = [row["std"] for row in points]
            line, fill = ("o:", "white") if is_soft else ("o-", colour)
            panel.errorbar(at, means, yerr=spread, fmt=line, ms=4, color=colour, mfc=fill, capsize=2, lw=1.4)
        panel.annotate(
            f"{name}{' soft' * is_soft} {points[-1]['mean']:.1f}",
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
    if any(regime != "HL" for _, regime in curves):
        note += "\nDotted: students learn from soft labels that the set stores; all others from hard labels."
    picture.text(0.012, 0.915, note, ha="left", va="top", fontsize=8, color=GREY)
    picture.tight_layout(rect=(0, 0, 1, 0.88))
    return picture


def _means(rows: Sequence[Row], names: Sequence[str]) -> list[float]:
    return [statistics.mean(row["values"]) for row in rows if row["set"] in names]


if __name__ == "__main__":
    main()
