"""The content of a distilled set's file, as HDF5 nodes.

========================= ========================================================================
node                      content
========================= ========================================================================
``/images``               float32, float16 or uint8 [N,C,H,W]; times the attribute ``scale`` it is in
                          unit pixel space (0 black, 1 white, may exceed); as stored, not decoded
``/labels``               int64 [N], class-major
``/soft_labels``          float32 logits [N,K] of the stored images, or of the images that they decode into;
                          only if learned or computed by a teacher
``/classes``              K names, UTF-8, in label order
``/preprocess/<tensor>``  the preprocessing for the student; the attribute ``kind`` names it
``/decode``               attributes ``factor``, ``mode`` and ``bound`` of a `MultiFormation`;
                          of plain images: ``factor`` 1 and ``mode`` "none"
attributes of ``/``       ``format``, ``version``, ``sha256``, and how the set was made
``/results/<n>``          an evaluation: JSON, with its own attribute ``sha256``
========================= ========================================================================

Text is UTF-8 of fixed length. ``sha256`` covers every data set and attribute but itself and ``/results``: see
`checksum`. Attributes name data and files without their folders, because sets are passed on: see `origin`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Literal, get_args

import h5py
import numpy as np
import torch
from torch import Tensor

from dsdistill.data.preprocess import Preprocess, from_state
from dsdistill.errors import UserError
from dsdistill.files import parse_json
from dsdistill.storage.hdf5 import (
    RESERVED,
    SET,
    attribute,
    checksum,
    contents,
    create,
    fixed_text,
    set_attributes,
)
from dsdistill.synthetic.distilled import DistilledSet, Scalar
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation
from dsdistill.synthetic.picture import to_uint8

Dtype = Literal["float32", "float16", "uint8"]


def fill(file: h5py.File, distilled: DistilledSet, dtype: Dtype) -> None:
    """Write a set into an empty file.

    Raises:
        UserError: the dtype is unknown or cannot hold the pixels.
    """
    images = create(file, "images", _encode(distilled.images, dtype))
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
    multi_formation = distilled.multi_formation
    plain = {"factor": 1, "mode": "none"}
    set_attributes(decode, **(plain if multi_formation.is_identity else dataclasses.asdict(multi_formation)))
    set_attributes(file, format=SET.name, version=SET.version, **distilled.attributes)
    set_attributes(file, sha256=checksum(*contents(file)))


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


def parse(file: h5py.File) -> DistilledSet:
    """Read a set from a file and verify shapes, dtypes, values and the checksum.

    Raises:
        ValueError: the content does not match the checksum, or a node is missing or of an unknown type.
        UserError: the content makes no sense as a set.
    """
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
        multi_formation=_multi_formation(attributes),
        attributes={
            path[1:]: value
            for path, value in attributes.items()
            if path.startswith("@") and path[1:] not in RESERVED
        },
    )
    if not _fits(distilled.preprocess, distilled.images[:1]):
        raise UserError("the preprocessing was made for images of another shape")
    return distilled


def _multi_formation(attributes: Mapping[str, Scalar]) -> MultiFormation:
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


def add_result(file: h5py.File, number: int, text: str) -> None:
    """Write an evaluation, as JSON text, with a checksum of its own."""
    node = file.require_group("results").create_dataset(str(number), data=fixed_text(text))
    set_attributes(node, sha256=hashlib.sha256(text.encode()).hexdigest())


def parse_results(file: h5py.File) -> dict[int, dict[str, Any]]:
    """Read the evaluations by number, ascending.

    Raises:
        ValueError: an evaluation does not match its checksum, or is no JSON object.
    """
    if "results" not in list(file):  # list the names: `in` and `get` take a damaged group for an absent one
        return {}
    results = {}
    for number in sorted(map(int, file["results"])):
        node = file[f"results/{number}"]
        text: bytes = b"" if node.dtype.hasobject else node[()]
        if attribute(node, "sha256") != hashlib.sha256(text).hexdigest():
            raise ValueError(f"/results/{number} does not match its checksum")
        results[number] = parse_json(text)
        if not isinstance(results[number], dict):
            raise ValueError(f"/results/{number} is no JSON object")
    return results
