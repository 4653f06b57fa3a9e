"""The file a distillation leaves behind: HDF5, typed, checksummed, readable by stock h5py.

========================= ========================================================================
node                      content
========================= ========================================================================
``/images``               float32, float16 or uint8 [N,C,H,W]; times the attribute ``scale`` it is in
                          unit pixel space (0 black, 1 white, may exceed); as stored, not decoded
``/labels``               int64 [N], class-major
``/soft_labels``          float32 logits [N,K] of the stored images, or of those they are decoded into;
                          only where learned or given by a teacher
``/classes``              K names, UTF-8, in label order
``/preprocess/<tensor>``  what the student must see; the attribute ``kind`` says what it is
``/decode``               attributes ``factor``, ``mode`` and ``bound`` of a `MultiFormation`;
                          of plain images: ``factor`` 1 and ``mode`` "none"
attributes of ``/``       ``format``, ``version``, ``sha256``, and what is known of the set's making
``/results/<n>``          an evaluation: JSON, with its own attribute ``sha256``
========================= ========================================================================

Text is UTF-8 of fixed length. ``sha256`` covers every data set and attribute but itself and ``/results``: see
`checksum`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import numpy as np
import torch
from torch import Tensor

from dsdistill.data.preprocess import Preprocess, from_state
from dsdistill.errors import UserError
from dsdistill.files import check_folder, exclusive, reason, replace
from dsdistill.storage.hdf5 import (
    FORMAT,
    LAYOUT,
    RESERVED,
    VERSION,
    attribute,
    check_attribute,
    check_text,
    checksum,
    contents,
    create,
    fixed_text,
    opened,
    set_attributes,
)
from dsdistill.synthetic.distilled import DistilledDataset, DistilledSet, Scalar
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation

__all__ = [
    "FORMAT",
    "VERSION",
    "Description",
    "DistilledDataset",
    "DistilledSet",
    "append_result",
    "check_writable",
    "checksum",
    "describe",
    "load",
    "read",
    "results",
    "to_uint8",
    "write",
]

Dtype = Literal["float32", "float16", "uint8"]

# Writing ----------------------------------------------------------------------------------------------------


def write(path: str | Path, distilled: DistilledSet, dtype: Dtype = "float32") -> float:
    """Write a set, replacing at once whatever file was there.

    Args:
        dtype: of the stored pixels; "uint8" clips them to [0,1] and keeps 256 levels.

    Returns:
        the largest absolute error that storing caused in a pixel, measured by reading back; 0 for float32.

    Raises:
        UserError: the file cannot be written, or the dtype or an attribute cannot hold what it should.
    """
    for name, value in distilled.attributes.items():
        check_attribute(name, value)
    for name in distilled.classes:
        check_text("a class name", name)
    pixels = _encode(distilled.images, dtype)
    # A full disk crashes HDF5 beyond repair (a segmentation fault), so it writes to memory.
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=LAYOUT) as file:
        images = create(file, "images", pixels)
        set_attributes(images, scale=1 / 255 if dtype == "uint8" else 1.0)
        create(file, "labels", distilled.labels.cpu().numpy())
        if distilled.soft_labels is not None:
            create(file, "soft_labels", distilled.soft_labels.detach().cpu().numpy())
        create(file, "classes", fixed_text(distilled.classes))
        preprocess = file.create_group("preprocess")
        set_attributes(preprocess, kind=distilled.preprocess.kind)
        for name, tensor in distilled.preprocess.state().items():
            create(preprocess, name, tensor.detach().cpu().numpy())
        decode = file.create_group("decode")
        plain = {"factor": 1, "mode": "none"}
        formation = distilled.formation
        set_attributes(decode, **(plain if formation.is_identity else dataclasses.asdict(formation)))
        set_attributes(file, format=FORMAT, version=VERSION, **distilled.attributes)
        set_attributes(file, sha256=checksum(*contents(file)))
        stored = _distilled(file)
    target = Path(path).resolve()
    check_folder(target)
    with exclusive(target.parent):
        replace(target, buffer.getbuffer())
    return float((stored.images - distilled.images.detach().cpu()).abs().max())


def _encode(images: Tensor, dtype: Dtype) -> np.ndarray:
    images = images.detach().cpu()
    if dtype == "uint8":
        return to_uint8(images).numpy()
    if dtype == "float16":
        largest = float(images.abs().max())
        if largest > torch.finfo(torch.float16).max:
            raise UserError(f"float16 cannot hold a pixel of {largest:.3g}; store the set as float32")
        return images.half().numpy()
    if dtype == "float32":
        return images.numpy()
    raise UserError(f"unknown storage dtype {dtype!r}; known: float32, float16, uint8")


def to_uint8(unit: Tensor) -> Tensor:
    """Clip unit pixels to [0,1] and round them to 256 levels: float of any shape -> uint8."""
    return unit.clamp(0, 1).mul(255).round().to(torch.uint8)


# Reading ----------------------------------------------------------------------------------------------------


def read(path: str | Path) -> DistilledSet:
    """Read a set and verify it: format, version, shapes, dtypes, values, checksum.

    Raises:
        UserError: no such file, not a dsdistill file, made by a newer version, or damaged.
    """
    with opened(path) as file:
        return _distilled(file)


def _distilled(file: h5py.File) -> DistilledSet:
    arrays, attributes = contents(file)
    if attribute(file, "sha256") != checksum(arrays, attributes):
        raise ValueError("its content does not match its checksum")
    missing = {"images", "labels", "classes"} - set(arrays)
    if missing or str(arrays["images"].dtype) not in get_args(Dtype):
        raise ValueError(f"/{min(missing)} is missing" if missing else "/images has an unknown type")
    prefix = "preprocess/"
    state = {p.removeprefix(prefix): torch.from_numpy(a) for p, a in arrays.items() if p.startswith(prefix)}
    soft = arrays.get("soft_labels")
    distilled = DistilledSet(
        images=torch.from_numpy(arrays["images"]).float().mul(float(attributes["images@scale"])),
        labels=torch.from_numpy(arrays["labels"]),
        classes=tuple(name.decode() for name in arrays["classes"]),
        preprocess=from_state(str(attributes["preprocess@kind"]), state),
        soft_labels=None if soft is None else torch.from_numpy(soft),
        formation=_formation(attributes),
        attributes={
            path[1:]: value
            for path, value in attributes.items()
            if path.startswith("@") and path[1:] not in RESERVED
        },
    )
    if not _fits(distilled.preprocess, distilled.images[:1]):
        raise UserError("the preprocessing was made for images of another shape")
    return distilled


def _formation(attributes: Mapping[str, Scalar]) -> MultiFormation:
    factor, mode = int(attributes["decode@factor"]), str(attributes["decode@mode"])
    if (factor, mode) == (1, "none"):
        return IDENTITY
    bound = int(attributes.get("decode@bound", MultiFormation.bound))
    return MultiFormation(factor=factor, mode=mode, bound=bound)  # type: ignore[arg-type]  # checked with the set


def _fits(preprocess: Preprocess, images: Tensor) -> bool:
    try:
        return preprocess(images).shape == images.shape
    except (RuntimeError, ValueError):
        return False


def load(
    path: str | Path,
    space: Literal["network", "unit"] = "network",
    labels: Literal["hard", "soft"] = "hard",
    decode: bool = True,
) -> DistilledDataset:
    """Load a set, verified, as a torch data set: ``DataLoader(load("set.h5"), batch_size=256)``.

    Args:
        space: "network" for preprocessed images, which a student is trained on; "unit" for pixels.
        labels: "soft" for the learned logits in place of class indices.
        decode: turn the stored images of a multi-formation into the training images they stand for.

    Raises:
        UserError: as `read`; or soft labels asked of a set without.
    """
    return DistilledDataset(read(path), space, labels, decode)


# Results and description ------------------------------------------------------------------------------------


def append_result(path: str | Path, result: Mapping[str, Any]) -> None:
    """Add an evaluation to a set's file; the set itself, and its checksum, stay as they are.

    Raises:
        UserError: as `read`; the result is not JSON; or the file cannot be written.
    """
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"the result cannot be written as JSON: {reason(error)}") from error
    target = Path(path).resolve()
    with exclusive(target.parent):  # or two evaluations that end together would lose one
        with opened(path) as file:
            _distilled(file)
            number = max(_results(file), default=-1) + 1
        buffer = io.BytesIO(target.read_bytes())
        with h5py.File(buffer, "r+", libver=LAYOUT) as file:
            node = file.require_group("results").create_dataset(str(number), data=fixed_text(text))
            set_attributes(node, sha256=hashlib.sha256(text.encode()).hexdigest())
        replace(target, buffer.getbuffer())


def results(path: str | Path) -> list[dict[str, Any]]:
    """Return the evaluations in a set's file, in the order they were added.

    Raises:
        UserError: as `read`.
    """
    with opened(path) as file:
        return list(_results(file).values())


def _results(file: h5py.File) -> dict[int, dict[str, Any]]:
    if "results" not in list(file):  # list the names: to `in` and `get` a damaged group is an absent one
        return {}
    found = {}
    for number in sorted(map(int, file["results"])):
        node = file[f"results/{number}"]
        text: bytes = b"" if node.dtype.hasobject else node[()]
        if attribute(node, "sha256") != hashlib.sha256(text).hexdigest():
            raise ValueError(f"/results/{number} does not match its checksum")
        found[number] = json.loads(text)
    return found


@dataclass(frozen=True)
class Description:
    """What a file holds and what it costs; sizes are compressed bytes on disk."""

    classes: tuple[str, ...]
    counts: tuple[int, ...]  # stored images of each class
    decoded: tuple[int, ...]  # training images of each class; those stored, unless it is a multi-formation
    formation: MultiFormation
    shape: tuple[int, ...]  # of an image: C, H, W
    dtype: str  # of the stored pixels
    preprocess: str
    has_soft_labels: bool
    file_bytes: int
    image_bytes: int
    label_bytes: int  # hard and soft
    preprocess_bytes: int
    attributes: dict[str, Scalar]
    results: list[dict[str, Any]]


def digest(path: str | Path) -> str:
    """Return the checksum of a file's content, results aside, as the file itself states it.

    Raises:
        UserError: the file cannot be read or is not a dsdistill one.
    """
    with opened(path) as file:
        return str(attribute(file, "sha256"))


def describe(path: str | Path) -> Description:
    """Verify a file and say what is in it.

    Raises:
        UserError: as `read`.
    """
    with opened(path) as file:
        distilled = _distilled(file)
        size = {
            name: node.id.get_storage_size() for name, node in file.items() if isinstance(node, h5py.Dataset)
        }
        per_class = Counter(distilled.labels.tolist())
        counts = tuple(per_class[label] for label in range(len(distilled.classes)))
        return Description(
            classes=distilled.classes,
            counts=counts,
            decoded=tuple(map(distilled.formation.decoded, counts)),
            formation=distilled.formation,
            shape=tuple(distilled.images.shape[1:]),
            dtype=str(file["images"].dtype),
            preprocess=distilled.preprocess.kind,
            has_soft_labels=distilled.soft_labels is not None,
            file_bytes=Path(path).stat().st_size,
            image_bytes=size["images"],
            label_bytes=size["labels"] + size.get("soft_labels", 0),
            preprocess_bytes=sum(node.id.get_storage_size() for node in file["preprocess"].values()),
            attributes=dict(distilled.attributes),
            results=list(_results(file).values()),
        )


def check_writable(path: str | Path, overwrite: bool = False, remedy: str = "") -> None:
    """Find out before a long run, not after it, that its result could not be written.

    Args:
        overwrite: whether a dsdistill file already there may be replaced; any other file never is.
        remedy: what else than another name would do, for the message.

    Raises:
        UserError: the path is a folder, its folder is missing or cannot be written to, or a file is there.
    """
    target = Path(path)
    if target.is_dir():
        raise UserError(f"{path} is a folder; name a file, for example {target / 'set.h5'}")
    check_folder(target)
    if not target.exists():
        return
    try:
        with opened(path):
            pass
    except UserError as error:
        raise UserError(f"{path} exists and would not be replaced ({error}); choose another name") from error
    if not overwrite:
        raise UserError(f"{path} exists; choose another name{remedy}")
