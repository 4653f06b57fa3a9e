"""A distilled set as WebDataset shards: tar files in which the files of one name are one example."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from dsdistill.export.training_images import Example, TrainingImages, as_json, npy
from dsdistill.files import check_new_folder, check_replaceable, expanded, new_folder, replace, write_new

_IN_A_SHARD = 10_000
DESCRIPTION = "dsdistill.json"


def export_webdataset(path: str | Path, out: str | Path) -> list[str]:
    """Write the training images of a set as one shard, or as a folder of shards of 10,000 images.

    An example has ``.png`` (8 bits), ``.npy`` (the same pixels as float32 [C,H,W] in unit space, nothing
    clipped or rounded), ``.cls`` (the label), ``.json`` (label and class name) and, if the set has soft
    labels, ``.logits.npy``. The folder also holds dsdistill.json: class names, and mean and std for students.

    Args:
        out: a .tar file, or a folder to create, complete or not at all.

    Returns:
        sentences on what is left out.

    Raises:
        UserError: as `set_file.read`; the images have neither 1 nor 3 channels; or ``out`` cannot be written.
    """
    path, out = expanded(path), expanded(out)
    if out.suffix.lower() == ".tar":
        check_replaceable(out, ".tar")
        images = TrainingImages(path)
        replace(out, _shard(enumerate(images), images.dataset.classes))
        return images.dropped()
    check_new_folder(out)
    images = TrainingImages(path)
    numbered = enumerate(images)
    with new_folder(out) as part:
        for shard in range(-(-len(images) // _IN_A_SHARD)):
            examples = itertools.islice(numbered, _IN_A_SHARD)
            write_new(part / f"shard-{shard:06d}.tar", _shard(examples, images.dataset.classes))
        write_new(part / DESCRIPTION, as_json(images.description()))
    return images.dropped()


def _shard(examples: Iterable[tuple[int, Example]], classes: tuple[str, ...]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, example in examples:
            for ending, data in _files(example, classes):
                member = tarfile.TarInfo(
                    f"{number:08d}.{ending}"
                )  # of no date and owner: equal sets, equal bytes
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _files(example: Example, classes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    yield "png", example.png
    yield "npy", npy(example.pixels)
    yield "cls", str(example.label).encode()
    yield "json", as_json({"label": example.label, "class": classes[example.label]})
    if example.logits is not None:
        yield "logits.npy", npy(example.logits)
