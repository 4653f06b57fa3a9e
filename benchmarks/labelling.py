"""Labelling by a teacher, and training on its labels, side by side on this machine.

    python benchmarks/labelling.py views     images × views labelled a second: a file a batch, and ours
    python benchmarks/labelling.py training  a student's epoch: online teacher, stored views, views alone
    python benchmarks/labelling.py views --quick   next to nothing to do, to see that it works

The plain labelling is tests/reference/fkd.py: PNG files are opened, cropped and resized by PIL one by one,
and torch saves a file for each batch, in one process. Ours replaces the whole of it: it draws, crops and
mixes a block of batches at once, passes them through the teacher together, and writes one verified file. In
bf16 the teacher computes as `dsdistill label` has it do on a CPU with such instructions.
"views alone" replays stored batches and trains on none of them; it has to take less than training does.

Every variant runs in a process of its own, and they take turns. Medians and paired ratios are printed and go
to artifacts/labelling-<what>.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the plain version lives beside the tests

from benchmarks.alternate import Variant, alternate, report
from benchmarks.common import write_record
from dsdistill.config.labels import LabelConfig, Source
from dsdistill.data.preprocess import Standardise
from dsdistill.evaluation import students
from dsdistill.evaluation.batches import TrainingSet, ViewBatches
from dsdistill.evaluation.ensembles import Ensembles
from dsdistill.evaluation.execution import Execution
from dsdistill.evaluation.loss import StudentLoss
from dsdistill.labelling.config import LabellingConfig
from dsdistill.labelling.labelled import labelled
from dsdistill.networks import Network, build_network
from dsdistill.protocol import Protocol
from dsdistill.runtime.device import Precision, quiet_allocator
from dsdistill.seeding import forked, generator
from dsdistill.storage import set_file
from dsdistill.storage.set_schema import as_stored
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.teachers import Committee, Teacher
from dsdistill.teachers.teacher import answering
from tests.reference import fkd

CPU = torch.device("cpu")
MEAN, STD = (0.5,), (0.25,)


@dataclass(frozen=True)
class Sizes:
    """How much is labelled, and by what.

    Attributes:
        images: of the set, grey, in 10 classes.
        size: their side in pixels.
        views: of each image.
        batch: views in a batch.
        teacher, student: names of networks.
    """

    images: int = 100
    size: int = 28
    views: int = 30
    batch: int = 50
    teacher: str = "convnet3-batch"
    student: str = "convnet3"


QUICK = Sizes(images=20, size=8, views=2, batch=8, teacher="convnet2-w4-batch", student="convnet2-w4")


def example(sizes: Sizes) -> DistilledSet:
    """Return a set of noise, whose pixels are bytes as those of pictures are."""
    shape = (sizes.images, 1, sizes.size, sizes.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(0, "images"))
    labels = (torch.arange(sizes.images) * 10 // sizes.images).long()
    return DistilledSet(
        as_stored(pixels / 255, "uint8"), labels, tuple(map(str, range(10))), Standardise.of(MEAN, STD)
    )


def network(sizes: Sizes, name: str) -> Network:
    with forked(0, "teacher"):
        return build_network(name, 1, sizes.size, 10)


def committee(sizes: Sizes, precision: Precision = "fp32") -> Committee:
    """Return a teacher that knows nothing, which takes as long as one that does."""
    frozen = answering(network(sizes, sizes.teacher), CPU)
    return Committee([Teacher(frozen, "teacher", "0" * 16)], precision=precision)


def config(sizes: Sizes) -> LabellingConfig:
    return LabellingConfig(teachers=("teacher.h5",), views=sizes.views, batch_size=sizes.batch)


def plain_views(sizes: Sizes) -> Callable[[], Any]:
    """Label views of pictures as released code does."""
    folder = Path(tempfile.mkdtemp())
    pixels = (example(sizes).images * 255).round().byte()
    files = [folder / f"{number}.png" for number in range(sizes.images)]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(image[0].numpy()).save(file)
    teacher, target = network(sizes, sizes.teacher).eval(), folder / "labels"

    def label() -> Path:
        shutil.rmtree(target, ignore_errors=True)
        fkd.relabel(files, teacher, target, sizes.views, sizes.batch, MEAN, STD)
        return target

    return label


def our_views(sizes: Sizes, precision: Precision) -> Callable[[], Any]:
    """Label views of a set, and write its file."""
    quiet_allocator()
    target = Path(tempfile.mkdtemp()) / "views.h5"
    distilled, teachers, options = example(sizes), committee(sizes, precision), config(sizes)

    def label() -> Path:
        set_file.write(target, labelled(distilled, teachers, options), "uint8")
        return target

    return label


def training(sizes: Sizes, source: Source) -> Callable[[], Any]:
    """Train a student for an epoch on stored views, or on batches that a teacher labels."""
    quiet_allocator()
    protocol = _protocol(sizes, source)
    execution = Execution(CPU, "fp32", False, print)
    ensemble = Ensembles(execution, StudentLoss(protocol.labels)).fill([network(sizes, sizes.student)])
    options = students.StudentTraining(protocol, protocol.transform_for(True), teacher=committee(sizes))
    sets = [_training_set(sizes, source)]
    return lambda: students.fit(ensemble, sets, [0], options, execution)


def replaying(sizes: Sizes) -> Callable[[], Any]:
    """Replay the stored views of an epoch, and train on none."""
    quiet_allocator()
    batches = ViewBatches([_training_set(sizes, "views")], _protocol(sizes, "views"), 0, 10)
    return lambda: [batch.images.shape for batch in batches.epoch(0)]


def _protocol(sizes: Sizes, source: Source) -> Protocol:
    """Return how SRe2L trains, for one epoch."""
    augmentation = (
        {"crop_scale": (0.08, 1.0), "augmentation": "flip", "cutmix": 1.0} if source == "teacher" else {}
    )
    labels = LabelConfig(source=source, loss="kl", temperature=20.0)
    options: dict[str, Any] = {"optimiser": "adamw", "lr": 1e-3, "schedule": "cosine", **augmentation}
    options |= {"name": "example", "title": "example", "source": "example"}
    return Protocol(**options, epochs=1, batch_size=sizes.batch, labels=labels)


def _training_set(sizes: Sizes, source: Source) -> TrainingSet:
    options = dataclasses.replace(config(sizes), views=1)
    data = DistilledDataset(labelled(example(sizes), committee(sizes), options))
    return TrainingSet(data.images, data.labels, views=data.views, source=source)


def compared(what: str, sizes: Sizes) -> dict[str, Variant]:
    """Return the variants of a benchmark, the one to compare with first."""
    if what == "views":
        return {
            "plain: a file for each batch": functools.partial(plain_views, sizes),
            "ours: one file, batches joined": functools.partial(our_views, sizes, "fp32"),
            "ours, bf16": functools.partial(our_views, sizes, "bf16"),
        }
    return {
        "online teacher": functools.partial(training, sizes, "teacher"),
        "stored views": functools.partial(training, sizes, "views"),
        "views alone, no training": functools.partial(replaying, sizes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("views", "training"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="next to nothing to do, and no file")
    for each in dataclasses.fields(Sizes):
        parser.add_argument(f"--{each.name}", type=type(each.default), default=each.default)
    args = parser.parse_args()
    chosen = Sizes(**{each.name: getattr(args, each.name) for each in dataclasses.fields(Sizes)})
    sizes = QUICK if args.quick else chosen
    load = os.getloadavg()[0]  # above about 0.5 something else was running
    seconds = alternate(compared(args.what, sizes), 2 if args.quick else args.rounds)
    unit = f"{sizes.images * sizes.views} views" if args.what == "views" else "student epoch"
    rows = report(seconds, next(iter(seconds)), unit)
    if args.what == "views":
        rows = [row | {"views_a_second": sizes.images * sizes.views / row["median_s"]} for row in rows]
        for row in rows:
            print(f"{row['way']:44s} {row['views_a_second']:8.0f} images × views a second")
    if args.quick:
        return
    file = ROOT / "artifacts" / f"labelling-{args.what}.json"
    write_record(file, rows, load_before=load, sizes=dataclasses.asdict(sizes))


if __name__ == "__main__":
    main()
