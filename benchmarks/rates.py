"""Accuracy against bytes: sets with 32, 8, 4 and 2 bits a pixel, and real images that are coded alike.

    python benchmarks/rates.py artifacts/fashion-mnist-*-ipc1*.h5 --bits 32,8      what 8 bits cost
    python benchmarks/rates.py artifacts/fashion-mnist-dm-ipc1*.h5 --baselines random@bytes
    python benchmarks/rates.py artifacts/fashion-mnist-dm-ipc1.h5 --baselines herding@1ipc

The most bits that a set has are the file as it is, 32 or 8; with fewer it is what dsdistill encode makes of
it. Students are the same for every number of bits: they start from the same weights and see the same draws,
so that each differs from its twin at 32 bits by the pixels alone. Real images take the bytes of the set
beside them, or those that their name says, and are coded as it is, in 8 bits a pixel where that has 32. A set
whose classes have unequal numbers of images stands with those of its mean. Finished evaluations stay in
runs/rates/ and are not repeated; artifacts/rates.json has those of all calls, of which tables and the chart
are made: rates.md and rates.svg.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt

import dsdistill
from benchmarks.chart import BLUE, FAINT, GREY, STYLE
from benchmarks.common import ARTIFACTS, RUNS, spread, write_record
from dsdistill.config.ipc import as_words, read_ipc, typical
from dsdistill.errors import UserError
from dsdistill.evaluation.rows import size_of
from dsdistill.runtime.device import quiet_allocator
from dsdistill.storage.set_description import describe
from dsdistill.text import byte_size

BITS = (32, 8, 4, 2)
EPOCHS = {1: 300, 5: 100}
"""Of a student, from so many images per class on."""
FILE = ARTIFACTS / "rates.json"
COLOURS = (BLUE, "#8250df", "#1a7f37", "#bc4c00", "#bf3989", "#9a6700")
Row = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--bits", default=",".join(map(str, BITS)))
    parser.add_argument("--baselines", default="", help="such as random@bytes,herding@10ipc")
    parser.add_argument("--network", default="convnet-w32")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if unsized := [name for name in args.baselines.split(",") if name and not size_of(name)]:
        parser.error(
            f"{', '.join(unsized)}: say what images fill, as in {unsized[0]}@bytes or {unsized[0]}@1ipc"
        )
    quiet_allocator()
    folder = RUNS / "rates"
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Row] = {}
    if FILE.exists():
        known = json.loads(FILE.read_text())["rows"]
        rows = {_key(row): row for row in known if row["epochs"] == epochs_for(row["ipc"])}
    for file in args.files:
        for bits in map(int, args.bits.split(",")):
            for row in measured(file, bits, args.baselines, args.network, args.repeats, folder):
                rows[_key(row)] = row
            write_record(FILE, sorted(rows.values(), key=_order))
    ordered_rows = sorted(rows.values(), key=_order)
    FILE.with_suffix(".md").write_text(tables(ordered_rows))
    draw(ordered_rows)
    print(tables(ordered_rows))


def _key(row: Row) -> str:
    names = [str(row[name]) for name in ("method", "ipc", "bits", "set", "network")]
    return "/".join([*names, row.get("counts", "")])


def _group(row: Row) -> tuple[int, str]:
    """Return the images per class of a row's set, and words for them where classes have unequal numbers."""
    return row["ipc"], row.get("counts", "")


def _order(row: Row) -> tuple[Any, ...]:
    return *_group(row), row["method"], -row["bits"], row["set"] != "distilled", row["set"]


def epochs_for(ipc: int) -> int:
    """Return the epochs of a student, by images per class."""
    return EPOCHS[max(least for least in EPOCHS if least <= ipc)]


def measured(
    file: Path, bits: int, baselines: str, network: str, repeats: int, folder: Path
) -> list[dict[str, Any]]:
    """Encode a set, evaluate it, and return its row and those of real images."""
    about = describe(file)
    own = about.coded.bits if about.coded else max(BITS)
    if bits > own:
        raise UserError(
            f"{file} has {own} bits a pixel: leave --bits {bits} out, or distil it with --set storage=float32"
        )
    method, counts = str(about.attributes["method"]), read_ipc(about.attributes["ipc"])
    ipc = typical(counts)
    epochs = epochs_for(ipc)
    settings = f"{about.digest} {bits} {baselines} {network} {repeats} {epochs}"
    name = f"{method}-ipc{ipc}-{bits}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    coded, report = folder / f"{name}.h5", folder / f"{name}.json"
    if not coded.exists():
        if bits < own:
            dsdistill.encode(file, coded, bits=bits)
        else:
            shutil.copyfile(file, coded)
    if not report.exists():
        dsdistill.evaluate(
            coded,
            networks=network,
            epochs=epochs,
            repeats=repeats,
            baselines=baselines,
            save=False,
            json=report,
        )
    evaluation, size = json.loads(report.read_text()), describe(coded)
    print(
        name,
        *(f"{row['set']} {row['mean']:.2f} ± {row['std']:.2f}" for row in evaluation["rows"]),
        flush=True,
    )
    shared = {"method": method, "ipc": ipc, "bits": bits, "storage": size.storage}
    if counts != ipc:
        shared["counts"] = as_words(counts)
    shared |= {"bytes": size.image_bytes + size.label_bytes}
    shared |= {key: evaluation[key] for key in ("protocol", "machine", "date", "seed")}
    keys = ("set", "network", "epochs", "images", "values")
    rows = [shared | {key: row[key] for key in keys} for row in evaluation["rows"]]
    for row, evaluated in zip(rows, evaluation["rows"], strict=True):
        if evaluated["image_bytes"] is not None:
            row["bytes"] = round(evaluated["image_bytes"])
    return [row for row in rows if row["set"] == "distilled" or size_of(str(row["set"]))]


def tables(rows: Sequence[Row]) -> str:
    """Return a table for each IPC: accuracy by bits, and what they cost each student."""
    lines = []
    for group in sorted({_group(row) for row in rows}):
        some = [row for row in rows if _group(row) == group]
        ipc, words = group
        lines += [f"## {words or ipc} image{'s' if ipc > 1 or words else ''} per class", ""]
        head = [
            "method",
            "bits",
            "bytes",
            "accuracy %",
            "lost against 32 bits",
            "real images in as many bytes, or in those named",
        ]
        lines += [_line(head), _line(["---"] * len(head))]
        own = [row for row in some if row["set"] == "distilled"]
        whole = {row["method"]: row["values"] for row in own if row["bits"] == max(BITS)}
        for row in own:
            pairs = zip(whole.get(row["method"], ()), row["values"], strict=False)
            differences = [before - after for before, after in pairs]
            lost = spread(differences, "+") if differences and row["bits"] < max(BITS) else ""
            real = [
                f"{each['set'].removesuffix('@bytes')} {spread(each['values'])} "
                f"({each['images']:,} images, {byte_size(each['bytes'])})"
                for each in some
                if each["set"] != "distilled"
                and (each["method"], each["bits"]) == (row["method"], row["bits"])
            ]
            size = byte_size(row["bytes"])
            lines.append(
                _line([row["method"], row["storage"], size, spread(row["values"]), lost, ", ".join(real)])
            )
        first, counts = own[0], sorted({len(row["values"]) for row in own})
        lines += [
            "",
            "Test accuracy after the last epoch, mean ± standard deviation of "
            f"{' or '.join(map(str, counts))} students, {first['network']}, {first['epochs']} epochs of the "
            "method's own protocol; lost: of each student against its twin at 32 bits, in points.",
            "",
        ]
    return "\n".join(lines)


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def draw(rows: Sequence[Row]) -> None:
    """Draw accuracy against bytes: each row a point, and the best of each method or coreset so far a line.

    That best is by the test images, as the points are. Whatever was not coded in two numbers of bits below 8
    is left out, and there is no chart where nothing was.
    """
    curves: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["set"] != "distilled", row["bytes"])):
        curves.setdefault(_drawn_as(row), []).append(row)
    curves = {
        name: own for name, own in curves.items() if len({row["bits"] for row in own if row["bits"] < 8}) > 1
    }
    if not curves:
        return
    plt.rcParams.update(STYLE)
    picture, panel = plt.subplots(figsize=(7.2, 4.6))
    colours = itertools.cycle(COLOURS)
    greys = itertools.cycle((("#8b949e", ":"), (GREY, "--")))
    for name, own in curves.items():
        real = own[0]["set"] != "distilled"
        sizes = [row["bytes"] / 1e3 for row in own]
        means = [mean(row["values"]) for row in own]
        colour, dashes = next(greys) if real else (next(colours), "-")
        face = "white" if real else colour
        panel.plot(sizes, means, "o", ms=3.5, color=colour, mfc=face, alpha=0.7)
        best = list(itertools.accumulate(means, max))
        panel.step(sizes, best, dashes, where="post", color=colour, label=name, linewidth=1.2)
    panel.set_xscale("log")
    panel.set_xlabel("kilobytes of images and labels, compressed")
    panel.set_ylabel("test accuracy, %")
    panel.grid(color=FAINT, linewidth=0.6)
    panel.legend(frameon=False, fontsize=8)
    panel.set_title(
        "Fashion-MNIST: accuracy against bytes, from 2 to 32 bits a pixel", loc="left", fontsize=10
    )
    picture.tight_layout()
    picture.savefig(
        FILE.with_suffix(".svg"), metadata={"Date": None, "Creator": "python benchmarks/rates.py"}
    )


def _drawn_as(row: Row) -> str:
    """Return the name of a row in the chart: the method's, or how real images were chosen and by whose
    protocol they are trained on."""
    if row["set"] == "distilled":
        return str(row["method"])
    return f"real images, {row['set'].partition('@')[0]}, protocol {row['protocol']}"


if __name__ == "__main__":
    main()
