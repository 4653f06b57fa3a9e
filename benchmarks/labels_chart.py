"""Tables and a chart of what labels are worth, from the rows that benchmarks/labels.py writes.

    python benchmarks/labels_chart.py results/labels/rows.json    writes artifacts/labels.json, .md and .svg

Ways of labelling are rows, in the order of the benchmark; sets are columns, random real images the last. The
bytes of labels are those of the first set, compressed as the file stores them. Nothing is computed here but
means and deviations over students.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.chart import BLUE, FAINT, GREY, STYLE
from benchmarks.common import ARTIFACTS, date_range, spread
from dsdistill.text import byte_size

RANDOM = "random"
COLOURS = {"dm": BLUE, "datm": "#8250df", "herding": "#1a7f37", RANDOM: GREY}
Row = Mapping[str, Any]
Cells = dict[tuple[int, str], dict[str, Row]]
"""From IPC and way of labelling to the rows of the sets."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="+", help="of one run, or of several with the same options")
    args = parser.parse_args()
    rows = [row for path in args.rows for row in json.loads(path.read_text())]
    cells = by_cell(rows)
    cell_rows = [row for each in cells.values() for row in each.values()]
    files = " ".join(f"FOLDER/{path.name}" for path in args.rows)
    command = f"python benchmarks/labels.py FOLDER, then python benchmarks/labels_chart.py {files}"
    record = {"command": command, "rows": cell_rows}
    (ARTIFACTS / "labels.json").write_text(json.dumps(record, indent=1) + "\n")
    (ARTIFACTS / "labels.md").write_text(tables(cells))
    draw(cells).savefig(
        ARTIFACTS / "labels.svg", metadata={"Date": None, "Creator": "python benchmarks/labels_chart.py"}
    )
    print(tables(cells))


def by_cell(rows: Sequence[Row]) -> Cells:
    """Return the rows by IPC and way, a set's last where there are several."""
    cells: Cells = {}
    for row in rows:
        cells.setdefault((row["ipc"], row["labels"]), {})[row["set"]] = row
    return cells


def sets_of(cells: Cells, ipc: int) -> list[str]:
    """Return the sets of an IPC in their order, random images last."""
    names = [name for (each, _), cell in cells.items() if each == ipc for name in cell]
    return [*(name for name in dict.fromkeys(names) if name != RANDOM), RANDOM]


def tables(cells: Cells) -> str:
    """Return one table for each IPC."""
    text = []
    for ipc, ways in itertools.groupby(sorted(cells, key=lambda key: key[0]), key=lambda key: key[0]):
        names, some = sets_of(cells, ipc), list(ways)
        rows = [row for key in some for row in cells[key].values()]
        first = rows[0]
        text += [f"## {ipc} image{'s' if ipc > 1 else ''} per class", ""]
        head = ["labels", "regime", "protocol, epochs", "bytes of labels", *names]
        text += [_line(head), _line(["---"] * len(head))]
        for key in some:
            cell = cells[key]
            row = next(iter(cell.values()))
            size = byte_size(row["label_bytes"])
            about = [key[1], row["regime"], f"{row['protocol']}, {row['epochs']}", size]
            text.append(_line([*about, *(_accuracy(cell.get(name)) for name in names)]))
        students, days = len(first["values"]), date_range(row["date"] for row in rows)
        text += [
            "",
            "Test accuracy in percent after the last epoch, mean ± standard deviation of "
            f"{students} students, {first['network']}; images of the first set take "
            f"{byte_size(first['image_bytes'])}. {first['machine']}, {days}.",
            "",
        ]
    return "\n".join(text)


def _accuracy(row: Row | None) -> str:
    return "" if row is None else spread(row["values"])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def draw(cells: Cells) -> Figure:
    """Draw a panel for each IPC, with a line of dots for each way."""
    ipcs = sorted({ipc for ipc, _ in cells})
    ways = list(dict.fromkeys(way for _, way in cells))
    plt.rcParams.update(STYLE)
    picture, axes = plt.subplots(
        1, len(ipcs), figsize=(4.4 * len(ipcs) + 1.2, 1.6 + 0.28 * len(ways)), squeeze=False, sharey=True
    )
    for ipc, panel in zip(ipcs, axes[0], strict=True):
        _panel(panel, cells, ipc, ways)
    picture.suptitle(
        "Fashion-MNIST: what labels are worth", x=0.012, y=0.98, ha="left", fontsize=11, fontweight="bold"
    )
    picture.tight_layout(rect=(0, 0, 1, 0.95), w_pad=2)
    return picture


def _panel(panel: Axes, cells: Cells, ipc: int, ways: Sequence[str]) -> None:
    """Draw the dots of one IPC, and name the sets."""
    for name in sets_of(cells, ipc):
        points = [
            (cells[ipc, way][name], height)
            for height, way in enumerate(ways)
            if name in cells.get((ipc, way), {})
        ]
        panel.errorbar(
            [row["mean"] for row, _ in points],
            [height for _, height in points],
            xerr=[row["std"] for row, _ in points],
            fmt="o",
            ms=5,
            color=COLOURS.get(name, BLUE),
            mfc="white" if name == RANDOM else COLOURS.get(name, BLUE),
            capsize=2.5,
            label=name,
        )
    panel.set_title(f"{ipc} image{'s' if ipc > 1 else ''} per class", fontsize=10, loc="left")
    panel.set_yticks(range(len(ways)), ways)
    panel.set_ylim(len(ways) - 0.4, -0.6)  # the first at the top
    panel.set_xlabel("accuracy %")
    panel.grid(color=FAINT, lw=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(length=0)
    panel.legend(frameon=False, fontsize=8, loc="best")
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)


if __name__ == "__main__":
    main()
