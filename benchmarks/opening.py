"""How long data in ImageNet's layout take to open: the first time, and ever after.

    python benchmarks/opening.py                       1,000 classes of 130 pictures
    python benchmarks/opening.py --per-class 1300      as many files as ImageNet, and nine minutes

The folders are those of ImageNet. The files are names of one small picture of each class, so that they take
no room; to list and to look at them costs what it costs for files of their own. Each opening is a process
of its own, timed after its imports. The first lists the folders, decodes and hashes. The second finds the
list and the pixels in the cache. The third is the second without what spares it the work: every file is
looked at, and every pixel hashed. Pictures are 8 pixels wide; the bytes of the array are recorded, as
hashing grows with them and the rest with the files. Written to artifacts/opening.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
from PIL import Image

from benchmarks.common import ARTIFACTS, write_record

WAYS = ("first", "second", "second, all looked at")
IMAGENET = 1_281_167

_OPEN = """
import json, resource, sys, time
from dsdistill.data import catalog, file_index, mapped
from dsdistill.data.config import DataConfig

root, spared = sys.argv[1], sys.argv[2] == "spared"
file_index.MANY, mapped.IN_MEMORY = (0, 0) if spared else (1 << 62, 1 << 62)
since = time.monotonic()
_, data = catalog.load(DataConfig(name=f"folder:{root}", size=8, channels=3), "train")
print(json.dumps({"seconds": time.monotonic() - since, "images": len(data), "bytes": data.images.nbytes}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--per-class", type=int, default=130)
    parser.add_argument("-o", "--output", type=Path, default=ARTIFACTS / "opening.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Path(folder), args.classes, args.per_class)
    for row in rows:
        print(f"{row['way']:24s}{row['seconds']:8.2f} s for {row['images']:,} images")
    write_record(args.output, rows, scaling=scaling(rows))


def measured(folder: Path, classes: int, per_class: int) -> list[dict[str, Any]]:
    """Return a row for each opening of generated data."""
    write(folder / "data", classes, per_class)
    time.sleep(2.5)  # a folder that has just changed is not relied on
    ways = zip(WAYS, ("spared", "spared", "looked"), strict=True)
    return [{"way": way, **opened(folder, how)} for way, how in ways]


def write(root: Path, classes: int, per_class: int) -> None:
    """Write folders of classes, whose files are names of one picture each."""
    generator = np.random.default_rng(0)
    for number in range(classes):
        for split, count in (("train", per_class), ("val", 2)):
            home = root / split / f"n{number:08d}"
            home.mkdir(parents=True)
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(home / "0.png")
            for place in range(1, count):
                os.link(home / "0.png", home / f"{place}.png")


def opened(folder: Path, how: str) -> dict[str, Any]:
    """Open the data in a process of its own, and return its seconds."""
    environment = {**os.environ, "DSDISTILL_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    for index in (folder / "cache").rglob("*.index") if how == "looked" else ():
        index.unlink()
    command = [sys.executable, "-c", _OPEN, str(folder / "data"), how]
    process = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(process.stdout)
    return row


def scaling(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return microseconds of a file, and what they come to for ImageNet's, which is an extrapolation."""
    each = {row["way"]: row["seconds"] / row["images"] for row in rows}
    return {
        "microseconds_a_file": {way: round(1e6 * seconds, 2) for way, seconds in each.items()},
        "extrapolated_imagenet_seconds": {way: round(IMAGENET * seconds, 1) for way, seconds in each.items()},
    }


if __name__ == "__main__":
    main()
