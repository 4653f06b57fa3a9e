"""Our own recipe on data that it was not made on: digits, letters in a folder, and classes of unequal size.

    python benchmarks/other_data.py FOLDER                    three data sets × dsdistill and DM, 120 s each
    python benchmarks/other_data.py FOLDER --only letters --seconds 300
    python benchmarks/other_data.py FOLDER --quick            seconds: whether it works; writes no record

``digits`` are scikit-learn's, 8 pixels wide. ``letters`` are ten capitals, drawn at random sizes, angles and
places into pictures of 28 pixels in a folder for each class. ``long-tailed`` is Fashion-MNIST with 6,000
images of the first class and ever fewer of the next, down to 60. Both methods have the same seconds, in which
`dsdistill` also trains its network. Each run has a process and a cache of its own, so that it compiles and
trains for itself; the record has its seconds by the clock, too. Students are trained on ten images per class
by protocol dm; random real images stand beside them. Sets and their results stay in FOLDER, and the same
command goes on; a run that was stopped begins anew. The record goes to artifacts/other-data.json.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dsdistill
from benchmarks import isolation
from benchmarks.common import ARTIFACTS, write_record
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.seeding import generator

LETTERS = "ABCDEFGHIJ"
SIDE, INK_SIDE = 28, 64
"""Pixels of a picture of a letter, and of the one in which it is drawn before it is made smaller."""
IMBALANCE = 100
"""How many times as many images the largest class of the long tail has as the smallest."""
METHODS = ("dsdistill", "dm")


@dataclass(frozen=True)
class Sizes:
    """How large the runs are.

    Attributes:
        ipc, seconds: of each distillation.
        iterations: in place of the seconds; 0 leaves it to them.
        letters: pictures of each letter to train on; a fifth as many test.
        epochs, students: of the evaluation.
        networks: students, of digits and of the others; sets are made with those of their recipes.
    """

    ipc: int = 10
    seconds: float = 120.0
    iterations: int = 0
    letters: int = 500
    epochs: int = 300
    students: int = 3
    networks: tuple[str, str] = ("convnet2-w32", "convnet3-w64")


QUICK = Sizes(ipc=2, iterations=2, letters=20, epochs=2, students=1, networks=("convnet2-w4", "convnet2-w4"))


def letter(symbol: str, draws: torch.Generator) -> Image.Image:
    """Draw a letter, turned by up to 20 degrees, in some size, at some place, under a little noise."""
    size, angle, right, down = torch.rand(4, generator=draws).tolist()
    picture = Image.new("L", (INK_SIDE, INK_SIDE))
    font = ImageFont.load_default(size=round(28 + 24 * size))
    place = (INK_SIDE * (0.4 + 0.2 * right), INK_SIDE * (0.4 + 0.2 * down))
    ImageDraw.Draw(picture).text(place, symbol, fill=255, font=font, anchor="mm")
    small = picture.rotate(40 * angle - 20).resize((SIDE, SIDE))
    noise = 24 * torch.randn(SIDE, SIDE, generator=draws)
    pixels = torch.from_numpy(np.array(small)) + noise
    return Image.fromarray(pixels.clamp(0, 255).byte().numpy())


def write_letters(folder: Path, count: int) -> str:
    """Write pictures of letters, unless they are there, and return the name of the data."""
    if not folder.exists():
        draws = generator(0, "letters")
        for split, number in (("train", count), ("test", max(1, count // 5))):
            for symbol in LETTERS:
                home = folder / split / symbol
                home.mkdir(parents=True)
                for index in range(number):
                    letter(symbol, draws).save(home / f"{index:05d}.png")
    return f"folder:{folder}"


def long_tailed() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return Fashion-MNIST with classes of ever fewer training images, and all test images."""
    data = {}
    for split in ("train", "test"):
        _, real = catalog.load(DataConfig(name="fashion-mnist"), split)
        rows = torch.arange(len(real))
        if split == "train":
            classes, most = len(real.classes), int(real.counts.max())
            counts = [round(most * IMBALANCE ** (-label / (classes - 1))) for label in range(classes)]
            rows = torch.cat([real.indices_of(label)[:count] for label, count in enumerate(counts)])
        data[split] = (real.images[rows], real.labels[rows])
    return data


def rows_of(name: str, data: Any, network: str, sizes: Sizes, folder: Path) -> list[dict[str, Any]]:
    """Distil a data set by both methods, unless that is done, and evaluate the sets and random images."""
    rows = []
    for place, method in enumerate(METHODS):
        file = folder / f"{name}-{method}.h5"
        length: dict[str, Any] = {"budget": f"{sizes.seconds:g}s"}
        if sizes.iterations:
            length = {"iterations": sizes.iterations}
        seconds = isolation.distil(file, dataset=data, method=method, ipc=sizes.ipc, **length)
        report = dsdistill.evaluate(
            file,
            dataset=data,
            protocol="dm",
            networks=network,
            epochs=sizes.epochs,
            repeats=sizes.students,
            baselines="" if place else "random",
            resume=True,
        )
        for row in report.rows:
            shown = method if row.set == "distilled" else row.set
            rows.append(
                {"data": name, "method": shown, "iterations": None, "wall_seconds": None, **asdict(row)}
            )
            if row.set == "distilled":
                rows[-1]["iterations"] = dsdistill.load(file).attributes["iterations"]
                rows[-1]["wall_seconds"] = seconds
            print(f"{name:12s} {shown:10s} {row.mean:6.2f} ± {row.std:.2f}", flush=True)
    return rows


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the sets")
    parser.add_argument("--only", default="digits,letters,long-tailed", help="data sets, comma-separated")
    parser.add_argument("--seconds", type=float, default=Sizes.seconds, help="of each distillation")
    parser.add_argument("--quick", action="store_true", help="digits and letters, next to nothing to do")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    sizes = QUICK if arguments.quick else Sizes(seconds=arguments.seconds)
    rows = []
    for name in ("digits", "letters") if arguments.quick else arguments.only.split(","):
        data: Any = name
        if name == "letters":
            data = write_letters(folder / "letters", sizes.letters)
        elif name == "long-tailed":
            data = long_tailed()
        rows += rows_of(name, data, sizes.networks[name != "digits"], sizes, folder)
        if not arguments.quick:
            write_record(ARTIFACTS / "other-data.json", rows, sizes=asdict(sizes), imbalance=IMBALANCE)


if __name__ == "__main__":
    main()
