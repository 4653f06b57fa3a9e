"""A set of dsdistill itself, such as one with 8-bit pixels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dsdistill.errors import UserError
from dsdistill.importing.source import Format, Request, Source
from dsdistill.storage.set_file import read
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.extra_labels import left_out


def _read(path: Path, request: Request) -> Source:
    stored = read(path)
    if stored.views is not None:
        raise UserError(
            f"{path} holds views that a teacher has labelled, which belong to it as it is; import the set "
            "that was labelled, and label what that makes"
        )
    source = Source(
        images=stored.images,
        labels=stored.labels,
        soft_labels=stored.soft_labels,
        are_logits=True,
        classes=stored.classes,
        space="unit",
        preprocess=stored.preprocess,
        multi_formation=stored.multi_formation,
        attributes=stored.attributes,
        notices=tuple(left_out(stored, ("soft_labels",))),
    )
    return source if stored.compensators is None else _decoded(source, stored)


def _decoded(source: Source, stored: DistilledSet) -> Source:
    """Return the training images of a set with compensators, which no other format has."""
    dataset = DistilledDataset(stored, "unit")
    notice = (
        f"the {stored.stored_count} stored images, compensators among them, are decoded into {len(dataset)}"
    )
    return dataclasses.replace(
        source,
        images=dataset.images,
        labels=dataset.labels,
        soft_labels=dataset.soft_labels,
        notices=(notice, *source.notices),
    )


HDF5 = Format(
    "h5",
    "a .h5 that dsdistill wrote",
    lambda path: path.is_file() and path.suffix.lower() in (".h5", ".hdf5"),
    _read,
    options=(),
)
