"""What labels are worth: Fashion-MNIST sets and real images under every way of labelling them.

    dsdistill experts --recipe early-teacher --dataset fashion-mnist --budget laptop \\
        --set lr=0.005 --set epochs=12 -o results/labels/early.h5
    dsdistill experts --recipe teacher --dataset fashion-mnist --budget laptop -o results/labels/teacher.h5
    python benchmarks/labels.py results/labels --ipcs 1,10        goes on where it was stopped

Sets are those in artifacts/; random and herded real images get the same labels as the set beside them.
Students are ConvNet-3 of 64 maps, trained with DSA's augmentation on hard and static labels, and with crops,
flips and CutMix on views and on what a teacher says online. Static labels are those of one teacher after some
epochs of its training, all others those of another one after its last epoch. Every result is stored in the
labelled set's file as soon as it is there; artifacts/labels.json and labels.md have them all.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dsdistill
from benchmarks.common import ARTIFACTS
from dsdistill.pipeline.stopping import candidates

STUDENT = "convnet-w64"
CONTROLS = ("random", "herding")
EPOCHS = {1: 600, 10: 300, 50: 100}
"""Of a student, by images per class: about as many steps at each."""
VIEWS = 50
"""Stored views of an image; the students' epochs go through them again and again."""
STOPS = 5
BATCH = {1: 10, 10: 50, 50: 64}


@dataclass(frozen=True)
class Labels:
    """One way of labelling a set.

    Attributes:
        name: for people.
        protocol: of the students.
        source: as ``labels=`` of `dsdistill.evaluate`.
        teacher: its reference; empty for none.
        views: as of `dsdistill.label`; 0 for none.
        written: whether a file is labelled before students are trained.
    """

    name: str
    protocol: str
    source: str
    teacher: str = ""
    views: int = 0
    written: bool = True


def ways(early: Path, teacher: Path) -> list[Labels]:
    """Return every way, by the files of the early teacher and of the full one."""
    epochs = candidates(dsdistill.ExpertFile.open(early).epochs, STOPS)
    full = str(teacher)
    return [
        Labels("hard", "early-soft", "hard", written=False),
        *(Labels(f"early, epoch {epoch}", "early-soft", "static", f"{early}@{epoch}") for epoch in epochs),
        Labels("full teacher", "early-soft", "static", full),
        Labels("hard, crops and CutMix", "fkd", "hard", written=False),
        Labels(f"{VIEWS} views", "fkd", "views", full, VIEWS),
        Labels("online teacher", "fkd", "teacher", full, written=False),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "folder", type=Path, help="of the teachers, early.h5 and teacher.h5, and of labelled sets"
    )
    parser.add_argument("--sets", default="dm,datm")
    parser.add_argument("--ipcs", default="1,10,50")
    parser.add_argument("--students", type=int, default=3)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for ipc in map(int, args.ipcs.split(",")):
        for place, name in enumerate(args.sets.split(",")):
            source = ARTIFACTS / f"fashion-mnist-{name}-ipc{ipc}.h5"
            if not source.exists():
                source = args.folder / source.name
            for way in ways(args.folder / "early.h5", args.folder / "teacher.h5"):
                rows += evaluated(source, name, ipc, way, args.folder, args.students, controls=place == 0)
                for row in rows[-3:]:
                    print(f"IPC {ipc:2d}  {row['labels']:28s}{row['set']:10s}{row['mean']:6.2f}", flush=True)
    (args.folder / "rows.json").write_text(json.dumps(rows, indent=1) + "\n")


def evaluated(
    source: Path, name: str, ipc: int, way: Labels, folder: Path, students: int, controls: bool
) -> list[dict[str, Any]]:
    """Label a set in one way, train students on it, and on real images with the same labels.

    Args:
        controls: whether real images are evaluated too, which are the same for every set.
    """
    suffix = "".join(c if c.isalnum() else "-" for c in way.name)
    file = folder / f"{name}-ipc{ipc}-{suffix}.h5"
    if not file.exists():
        if way.written:
            options = {"views": way.views, "batch_size": BATCH[ipc]} if way.views else {}
            dsdistill.label(source, file, teachers=way.teacher, **options)  # type: ignore[arg-type]
        else:
            file.write_bytes(source.read_bytes())
    hard = way.source == "hard"
    suffixes = "" if hard else "+labels"
    report = dsdistill.evaluate(
        file,
        protocol=way.protocol,
        labels=way.source,  # type: ignore[arg-type]
        teacher=way.teacher or None,
        networks=STUDENT,
        epochs=EPOCHS[ipc],
        repeats=students,
        baselines=[f"{each}{suffixes}" for each in CONTROLS] if controls else (),
        resume=True,
    )
    shared = {
        "ipc": ipc,
        "labels": way.name,
        "protocol": way.protocol,
        "image_bytes": report.cost["image_bytes"],
        "label_bytes": report.cost["label_bytes"],
    }
    return [
        shared | asdict(row) | {"set": name if row.set == "distilled" else row.set.removesuffix("+labels")}
        for row in report.rows
    ]


if __name__ == "__main__":
    main()
