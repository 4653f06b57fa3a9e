"""What labels are worth: Fashion-MNIST sets and real images under every way of labelling them.

    dsdistill experts --recipe early-teacher --dataset fashion-mnist --budget laptop \\
        --set lr=0.005 --set epochs=12 -o results/labels/early.h5
    dsdistill experts --recipe teacher --dataset fashion-mnist --budget laptop -o results/labels/teacher.h5
    python benchmarks/labels.py results/labels --ipcs 1,10        goes on where it was stopped

Sets are those in artifacts/, and real images herded in the features of the full teacher; random real images
get the same labels as the set beside them.
Students are ConvNet-3 of 64 maps, trained with DSA's augmentation on hard and static labels, and with crops,
flips and CutMix on views and on what a teacher says online. Static labels are those of one teacher after some
epochs of its training, all others those of another one after its last epoch. Every result is stored in the
labelled set's file as soon as it is there, and rows.json in the folder has them; benchmarks/labels_chart.py
makes tables and a chart of it.
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

import torch

import dsdistill
from benchmarks.common import ARTIFACTS
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.selection import herding
from dsdistill.pipeline.stopping import candidates
from dsdistill.storage import set_file, set_results
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.teachers import load_teachers
from dsdistill.teachers.reference import parse_references

DATA = "fashion-mnist"
STUDENT = "convnet-w64"
CONTROLS = ("random",)
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
    parser.add_argument("--sets", default="dm,datm,herding")
    parser.add_argument("--ipcs", default="1,10,50")
    parser.add_argument("--students", type=int, default=3)
    parser.add_argument(
        "--no-controls", action="store_true", help="no random real images: their rows are there already"
    )
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for ipc in map(int, args.ipcs.split(",")):
        for place, name in enumerate(args.sets.split(",")):
            source = ARTIFACTS / f"{DATA}-{name}-ipc{ipc}.h5"
            if not source.exists():
                source = args.folder / source.name
            if not source.exists() and name == "herding":
                write_herding(source, ipc, args.folder / "teacher.h5")
            for way in ways(args.folder / "early.h5", args.folder / "teacher.h5"):
                controls = place == 0 and not args.no_controls
                latest = evaluated(source, name, ipc, way, args.folder, args.students, controls)
                rows += latest
                for row in latest:
                    print(f"IPC {ipc:2d}  {row['labels']:28s}{row['set']:10s}{row['mean']:6.2f}", flush=True)
                (args.folder / "rows.json").write_text(json.dumps(rows, indent=1) + "\n")


def write_herding(path: Path, ipc: int, teacher: Path) -> None:
    """Write a set of real images: of each class those whose mean features come nearest to that of all."""
    task, real = catalog.load(DataConfig(name=DATA), "train")
    (network,) = load_teachers(parse_references(str(teacher)), task, real.fingerprint, torch.device("cpu"))
    with torch.no_grad():
        parts = [network.network.embed(task.preprocess(real.unit(rows))) for rows in
                 torch.arange(len(real)).split(1000)]  # fmt: skip
    features, chosen = torch.cat(parts), []
    for label in range(len(real.classes)):
        rows = real.indices_of(label)
        chosen.append(rows[herding(features[rows], ipc)])
    rows = torch.cat(chosen)
    data = json.dumps({"name": DATA})
    about = {"dataset": DATA, "data": data, "fingerprint": real.fingerprint, "protocol": "dm"}
    herding_set = DistilledSet(
        real.unit(rows),
        real.labels[rows],
        real.classes,
        task.preprocess,
        attributes=about,
    )
    set_file.write(path, herding_set, "uint8")


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
    stored = {each["set"]: each for each in set_results.results(file)}  # the last of each
    return [
        shared
        | asdict(row)
        | {key: stored[row.set][key] for key in ("date", "machine", "seed", "packages")}
        | {"set": name if row.set == "distilled" else row.set.removesuffix("+labels")}
        for row in report.rows
    ]


if __name__ == "__main__":
    main()
