"""Describe a set's file: what it holds, and how large it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsdistill import files
from dsdistill.config.storage import Dtype, pixel_bytes
from dsdistill.config.unlabelled import is_labelled
from dsdistill.storage.hdf5 import SET, attribute, opened
from dsdistill.storage.set_schema import parse, parse_results
from dsdistill.storage.set_sizes import sizes_in
from dsdistill.synthetic.coded import Coding
from dsdistill.synthetic.decoding import decoded_counts
from dsdistill.synthetic.distilled import DistilledSet, Scalar
from dsdistill.synthetic.extra_labels import extra_labels
from dsdistill.synthetic.multi_formation import MultiFormation


@dataclass(frozen=True)
class Description:
    """The content of a set's file and its size.

    Attributes:
        counts: stored images of each class.
        compensators: stored images that are added to those of all classes; they are of no class.
        decoded_counts: training images of each class; equal to ``counts`` if the set needs no decoding.
        shape: of an image: C, H, W.
        dtype: of the stored pixels; None where they are coded.
        storage: how pixels are stored, for people.
        coded: their bits, side of a patch and number of shared quantisers; None where they are not.
        preprocess: its kind.
        labels: which it has: "hard", "hard, soft labels", "hard, 3000 views (30 epochs, cutmix, float16)",
            "targets of 512 numbers".
        file_bytes, image_bytes, label_bytes, preprocess_bytes: bytes on disk, compressed; compensators are
            images; labels are the hard and the soft ones, the weights of images, targets and views.
        view_bytes: those of the views alone.
        digest: the checksum of the set, results aside.
        attributes: how the set was made.
        results: the evaluations, in the order in which they were added.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    compensators: int
    decoded_counts: tuple[int, ...]
    multi_formation: MultiFormation
    shape: tuple[int, ...]
    dtype: Dtype | None
    storage: str
    coded: Coding | None
    preprocess: str
    has_soft_labels: bool
    labels: str
    file_bytes: int
    image_bytes: int
    label_bytes: int
    view_bytes: int
    preprocess_bytes: int
    digest: str
    attributes: dict[str, Scalar]
    results: list[dict[str, Any]]

    @property
    def bits(self) -> int:
        """Of a stored pixel."""
        if self.coded:
            return self.coded.bits
        assert self.dtype
        return int(8 * pixel_bytes(self.dtype))


def describe(path: str | Path) -> Description:
    """Verify a file and describe its content.

    Raises:
        UserError: as `set_file.read`.
    """
    with opened(path, SET) as file:
        distilled = parse(file)
        sizes, coded = sizes_in(file), distilled.coded
        dtype = None if coded else str(file["images"].dtype)
        per_class = Counter(distilled.labels.tolist())
        counts = tuple(per_class[label] for label in range(len(distilled.classes)))
        return Description(
            classes=distilled.classes,
            counts=counts,
            compensators=distilled.compensator_count,
            decoded_counts=tuple(
                decoded_counts(counts, distilled.multi_formation, distilled.compensator_count)
            ),
            multi_formation=distilled.multi_formation,
            shape=tuple(distilled.images.shape[1:]),
            dtype=dtype,  # type: ignore[arg-type]  # which `parse` has checked
            storage=coded.words if coded else str(dtype),
            coded=coded.coding if coded else None,
            preprocess=distilled.preprocess.kind,
            has_soft_labels=distilled.soft_labels is not None,
            labels=_label_words(distilled),
            file_bytes=files.expanded(path).stat().st_size,
            image_bytes=sizes.image_bytes + sizes.compensator_bytes,
            label_bytes=sizes.label_bytes,
            view_bytes=sizes.view_bytes,
            preprocess_bytes=sizes.preprocess_bytes,
            digest=str(attribute(file, "sha256")),
            attributes=dict(distilled.attributes),
            results=list(parse_results(file).values()),
        )


def _label_words(distilled: DistilledSet) -> str:
    """Say which labels a set has."""
    hard = ["hard"] if is_labelled(distilled.classes) else []
    return ", ".join([*hard, *extra_labels(distilled).values()]) or "none"
