"""Draw the accuracies of artifacts/accuracy-*.json: one row a method, one panel for each number of images.

    python benchmarks/chart.py    writes artifacts/results.svg

It shows the sets of Fashion-MNIST by students of ConvNet-3 that are trained with the settings of protocol dm,
which dsa and idm share. Every figure in the picture is read from these files.
"""

from __future__ import annotations

import itertools
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.common import ARTIFACTS
from dsdistill.protocol import load_protocol

DATASET, NETWORK, PROTOCOL = "fashion-mnist", "convnet", "dm"
RANDOM = "random selection"
INK, GREY, FAINT = "#1f2328", "#6e7781", "#d8dee4"
BLUE = "#0969da"
STYLE: dict[Any, object] = {  # keys of rcParams: str, and from matplotlib 3.11 on a Literal of them all
    "font.family": ["sans-serif"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": GREY,
    "ytick.color": INK,
    "axes.edgecolor": GREY,
    "svg.hashsalt": "dsdistill",
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Dot:
    """The accuracy of one method, or of random selection, in percent."""

    name: str
    ipc: int
    mean: float
    std: float
    students: int
    minutes: float
    """Of the distillation."""


def main() -> None:
    rows = [
        row
        for path in sorted(ARTIFACTS.glob("accuracy-*.json"))
        for row in json.loads(path.read_text())["rows"]
    ]
    picture = draw(list(dots(rows)))
    path = ARTIFACTS / "results.svg"
    picture.savefig(path, metadata={"Date": None, "Creator": "python benchmarks/chart.py"})
    print(f"wrote {path}")


def dots(rows: Sequence[dict[str, Any]]) -> Iterator[Dot]:
    """Yield the accuracies to draw: each method, and random selection, once for each IPC."""
    training = load_protocol(PROTOCOL).training
    keys = set()
    for row in rows:
        words = shlex.split(row["distilled_by"])
        options = dict(itertools.pairwise(words))
        name = RANDOM if row["set"] == "random" else options["--method"]
        key = name, int(options["--ipc"])
        place = row["dataset"], int(options["--ipc"])
        alike = load_protocol(row["protocol"], *place, epochs=row["epochs"]).training == training
        comparable = alike and (row["dataset"], row["network"]) == (DATASET, NETWORK)
        if comparable and row["set"] in ("distilled", "random") and key not in keys:
            keys.add(key)
            minutes = row["cost"]["distil_seconds"] / 60
            yield Dot(*key, row["mean"], row["std"], len(row["values"]), minutes)


def draw(points: Sequence[Dot]) -> Figure:
    """Draw one panel for each number of images, methods in the order of their accuracy."""
    ipcs = sorted({dot.ipc for dot in points})
    most = max(sum(dot.ipc == ipc for dot in points) for ipc in ipcs)
    plt.rcParams.update(STYLE)
    picture, axes = plt.subplots(1, len(ipcs), figsize=(8.0, 1.5 + 0.26 * most), squeeze=False)
    for ipc, panel in zip(ipcs, axes[0], strict=True):
        _panel(panel, [dot for dot in points if dot.ipc == ipc], most)
        panel.set_title(f"{ipc} image{'s' if ipc > 1 else ''} per class", fontsize=10, loc="left")
    methods = [dot for dot in points if dot.name != RANDOM]
    minutes = [dot.minutes for dot in methods]
    students = " or ".join(map(str, sorted({dot.students for dot in points})))
    epochs = load_protocol(PROTOCOL).epochs
    title = "Fashion-MNIST, ConvNet-3, about half an hour of distillation on CPU cores"
    picture.suptitle(title, x=0.012, y=0.98, ha="left", fontsize=11, fontweight="bold")
    note = (
        f"Test accuracy under protocol {PROTOCOL} ({epochs:,} epochs), mean ± standard deviation "
        f"of {students} fresh students.\n"
        f"Each set took {min(minutes):.0f} to {max(minutes):.0f} minutes; experts are not counted. "
        "Hollow: as many real images, drawn at random."
    )
    picture.text(0.012, 0.915, note, ha="left", va="top", fontsize=8, color=GREY, linespacing=1.5)
    picture.tight_layout(rect=(0, 0, 1, 0.87), w_pad=2)
    return picture


def _panel(panel: Axes, points: Sequence[Dot], most: int) -> None:
    """Draw the dots of one panel with room for so many."""
    ordered = sorted(points, key=lambda dot: (dot.name != RANDOM, dot.mean))  # from below
    for height, dot in enumerate(ordered):
        real = dot.name == RANDOM
        colour, fill = (GREY, "white") if real else (BLUE, BLUE)
        panel.errorbar(
            dot.mean, height, xerr=dot.std, fmt="o", ms=6, color=colour, mfc=fill, mew=1.4, capsize=2.5
        )
        panel.annotate(
            f"{dot.mean:.1f} ± {dot.std:.1f}",
            (1.0, height),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="center",
            color=GREY if real else INK,
        )
        if real:
            panel.axvline(dot.mean, color=GREY, lw=0.8, ls=(0, (4, 3)), zorder=0)
    low = min(dot.mean - dot.std for dot in ordered)
    high = max(dot.mean + dot.std for dot in ordered)
    panel.set_xlim(low - 0.04 * (high - low), high + 0.42 * (high - low))  # figures stand to the right
    panel.set_ylim(-0.6, most - 0.4)
    panel.set_yticks(range(len(ordered)), [dot.name for dot in ordered])
    ticks = MaxNLocator(nbins=5, integer=True).tick_values(low, high)
    panel.set_xticks([tick for tick in ticks if low - 1 <= tick <= high + 1])
    panel.set_xlabel("accuracy %")
    panel.grid(axis="x", color=FAINT, lw=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(length=0)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)


if __name__ == "__main__":
    main()
