"""A distilled set as a folder of Hugging Face's datasets: a parquet file and a card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from dsdistill.data.licences import licence_of
from dsdistill.evaluation.rows import Row, read_row
from dsdistill.export.parquet import parquet_bytes
from dsdistill.export.training_images import TrainingImages
from dsdistill.files import check_new_folder, expanded, make_folder, new_folder, write_new
from dsdistill.storage.set_description import Description, describe
from dsdistill.text import clock, listing, plain

_DATA = "train-00000-of-00001.parquet"


def export_huggingface(path: str | Path, folder: str | Path) -> list[str]:
    """Write a set as a folder that ``datasets.load_dataset(folder)`` reads and that a hub takes as it is.

    ``data/train-00000-of-00001.parquet`` is as `parquet_bytes` says; ``README.md`` is the card: how the set
    was made, its accuracies under which protocol, and the terms of the data that it was distilled from.

    Args:
        folder: the folder to create, complete or not at all; it must not exist or be empty.

    Returns:
        sentences on what is left out.

    Raises:
        UserError: as `set_file.read`; the images have neither 1 nor 3 channels; pyarrow is not installed; or
            the folder is not empty or cannot be written.
    """
    path, folder = expanded(path), expanded(folder)
    check_new_folder(folder)
    images = TrainingImages(path)
    data = parquet_bytes(images)
    text = card(describe(path), images)
    with new_folder(folder) as part:
        make_folder(part / "data")
        write_new(part / "data" / _DATA, data)
        write_new(part / "README.md", text.encode())
    terms = licence_of(_dataset(images))
    return [*images.dropped(), f"the terms of the data, as the card says: {terms.terms}"]


def card(about: Description, images: TrainingImages) -> str:
    """Return the card of a set, in Markdown with the head that the hub reads."""
    rows = [row for result in about.results if (row := read_row(result))]
    parts = (
        _head(images),
        _what(about, images),
        _origin(about),
        _accuracies(rows),
        _use(images),
        _terms(images),
    )
    return "\n".join(parts)


def _dataset(images: TrainingImages) -> str:
    return str(images.dataset.attributes.get("dataset", ""))


def _name(text: object) -> str:
    """Return a name, which others may have written, as Markdown shows it and does not obey."""
    name = plain(str(text)).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{each}" if each in "\\`*_[]|#" else each for each in name)


def _title(images: TrainingImages) -> str:
    attributes = images.dataset.attributes
    return f"{_dataset(images) or 'Images'}, distilled by {attributes.get('method', 'an unknown method')}"


def _head(images: TrainingImages) -> str:
    count = len(images)
    size = next(name for name, most in _SIZES if count < most)
    return f"""\
---
pretty_name: {json.dumps(plain(_title(images)))}
license: {licence_of(_dataset(images)).id}
task_categories:
- image-classification
size_categories:
- {size}
tags:
- dataset-distillation
- synthetic
- dsdistill
configs:
- config_name: default
  data_files:
  - split: train
    path: data/{_DATA}
---
"""


_SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("n>1M", 10**18))


def _what(about: Description, images: TrainingImages) -> str:
    channels, height, width = about.shape
    stored = sum(about.counts) + about.compensators
    decoded = f", decoded from {stored} stored ones" * (len(images) != stored)
    return f"""\
# {_name(_title(images))}

A distilled data set: {len(images)} synthetic training images of {len(about.classes)} classes{decoded}.
They were learned so that a network trained on them alone classifies real images; the accuracies say how well.

- Images: {height} x {width} pixels, {"grey" if channels == 1 else "RGB"}
- Classes: {_name(listing(about.classes))}
- Labels: {"hard, and soft as logits" if about.has_soft_labels else "hard"}
"""


_ORIGIN = (
    "method",
    "imported_from",
    "dataset",
    "network",
    "student",
    "protocol",
    "iterations",
    "seconds",
    "seed",
    "machine",
)


def _origin(about: Description) -> str:
    lines = [
        f"- {name.replace('_', ' ')}: {_name(clock(float(value)) if name == 'seconds' else value)}"
        for name in _ORIGIN
        if (value := about.attributes.get(name)) is not None
    ]
    return "\n".join(["## How it was made", "", *lines, f"- checksum: {about.digest}", ""])


def _accuracies(rows: list[Row]) -> str:
    return "\n".join(["## Accuracy", "", *_table(rows), ""])


def _table(rows: list[Row]) -> Iterator[str]:
    if not rows:
        yield "The set's file holds no evaluation. `dsdistill evaluate` makes one."
        return
    yield "Test accuracy in percent after the last epoch, mean ± standard deviation over students. Compare it"
    yield "only under the same protocol and with the same labels: HL, hard; SL, stored soft ones; SL+KD, an"
    yield "online teacher's. `random` is as many real images, `full` the whole data set."
    yield ""
    yield "| trained on | labels | images | student | protocol | epochs | accuracy | students |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        how = (row.set, row.regime, row.images, row.network, row.protocol)
        cells = (*how, row.epochs, row.accuracy, len(row.values))
        yield f"| {' | '.join(map(_name, cells))} |"


def _use(images: TrainingImages) -> str:
    preprocess = images.description()["preprocess"]
    if preprocess["kind"] == "standardise":
        mean, std = ([round(each, 4) for each in preprocess[name]] for name in ("mean", "std"))
        students = (
            f"Students are trained on (pixels - mean) / std per channel, with mean {mean} and std {std}."
        )
    else:
        students = "Students are trained on whitened images; the whitening is in the set's .h5 file only."
    logits = "\n- `logits`: the soft label, before softmax" if images.dataset.soft_labels is not None else ""
    return f"""\
## Use

```python
from datasets import load_dataset

data = load_dataset("path/to/this/folder", split="train").with_format("torch")
```

- `image`: an 8-bit picture, clipped and rounded
- `label`: the class
- `pixels`: the image as it was learned, float32 [C,H,W], 0 black and 1 white (may exceed){logits}

{students}
"""


def _terms(images: TrainingImages) -> str:
    dataset = _dataset(images) or "data that the file does not name"
    return f"""\
## Terms

Distilled from {_name(dataset)}. {licence_of(_dataset(images)).terms}
"""
