"""The content of a distilled set's file, as HDF5 nodes.

========================= ========================================================================
node                      content
========================= ========================================================================
``/images``               float32, float16 or uint8 [N,C,H,W]; times the attribute ``scale`` it is in
                          unit pixel space (0 black, 1 white, may exceed); as stored, not decoded
``/pixels``               in place of ``/images``, the same in a few bits; see below
``/labels``               int64 [N], class-major
``/soft_labels``          float32 logits [N,K] of the stored images, or of the images that they decode into;
                          only if learned or computed by a teacher
``/sample_weights``       float32 [N], from 0: the weight of each stored image in a student's loss
``/compensators``         float32 or float16 [n,C,H,W], in unit pixel space, of any sign: what is added to the
                          images of all classes; see `dsdistill.synthetic.compensation`
``/targets``              float32 [N,d]: what a network is to answer to each stored image; the attribute
                          ``targets`` of ``/`` says what these numbers are
``/views``                a teacher's answers to augmented views of the training images; see below
``/classes``              K names, UTF-8, in label order
``/preprocess/<tensor>``  the preprocessing for the student; the attribute ``kind`` names it
``/decode``               attributes ``factor``, ``mode`` and ``bound`` of a `MultiFormation`;
                          of plain images: ``factor`` 1 and ``mode`` "none"
attributes of ``/``       ``format``, ``version``, ``sha256``, and how the set was made
``/results/<n>``          an evaluation: JSON, with its own attribute ``sha256``
========================= ========================================================================

``/views`` holds M batches of V views in all, one batch after another:

========================= ========================================================================
node                      content
========================= ========================================================================
``rows``                  int32 [V], the training image that is viewed
``crops``                 int16 [V,4]: top, left, height and width in pixels of the box of it that is
                          enlarged to the whole image, bilinearly, corners not aligned
``flips``                 uint8 [V]: 1 where that is mirrored then
``partners``              int32 [V], the place in its batch of the view that it is mixed with last
``boxes``                 int16 [M,4]: first row and one past the last, and the same of columns, of the box
                          that the partner fills; of cutmix
``weights``               float64 [M]: λ, the share that a view keeps of its pixels; of mixup
``starts``                int64 [M+1]: batch b holds the views from ``starts[b]`` up to ``starts[b + 1]``
``epochs``                int32 [M], the epoch of each batch
``answers/values``        float32 or float16 [V,K], logits; or encoded, see `dsdistill.synthetic.answers`
``answers/…``             what another encoding needs besides
attributes                ``size`` of the images, ``images`` (how many), ``mixing`` (none, cutmix, mixup),
                          ``encoding``, ``pool`` (1 if the batches are a random share of all), ``digest``
                          of the images
========================= ========================================================================

All is done in network space.

``/pixels`` holds N images of P patches each, see `dsdistill.synthetic.coded`:

========================= ========================================================================
``codes``                 uint8 [N,⌈P·n·bits/8⌉], the n pixels of each patch as integers q of ``bits`` bits,
                          packed: the lowest bit of the first one is the lowest of the first byte
``scales``, ``offsets``   float16 [G]: a pixel is offset + scale · q
``groups``                unsigned integers [N,P], the scale and offset of each patch; absent where each has
                          its own, G = N·P
attributes                ``bits``, ``patch`` (the side of one; 0: an image is one patch), ``channels``,
                          ``height`` and ``width``
========================= ========================================================================

A set without labels has the one class "unlabelled".

A file with targets has version 5, one with coded pixels 4, one with compensators 3, one with views or weights
2, any other 1.

Text is UTF-8 of fixed length. ``sha256`` covers every data set and attribute but itself and ``/results``: see
`checksum`. Attributes name data and files without their folders, because sets are passed on: see `origin`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, get_args

import h5py
import numpy as np
import torch
from torch import Tensor

from dsdistill.config.storage import Dtype
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
from dsdistill.synthetic.coded import CodedPixels
from dsdistill.synthetic.distilled import DistilledSet, Scalar
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation
from dsdistill.synthetic.picture import to_uint8
from dsdistill.synthetic.views import Views


def fill(file: h5py.File, distilled: DistilledSet, dtype: Dtype | None) -> None:
    """Write a set into an empty file.

    Args:
        dtype: of pixels; None: as they are coded, or else float32.

    Raises:
        UserError: the dtype is unknown or cannot hold the pixels.
    """
    if coded := kept_coding(distilled, dtype):
        fill_coded(file, coded)
    else:
        images = create(file, "images", _encode(distilled.images, dtype or "float32"))
        set_attributes(images, scale=_scale(dtype or "float32"))
    create(file, "labels", distilled.labels.cpu().numpy())
    if distilled.compensators is not None:
        signed = "float16" if coded else _signed(dtype or "float32")
        create(file, "compensators", _encode(distilled.compensators, signed))
    if distilled.soft_labels is not None:
        create(file, "soft_labels", distilled.soft_labels.detach().cpu().numpy())
    if distilled.sample_weights is not None:
        create(file, "sample_weights", distilled.sample_weights.detach().cpu().numpy())
    if distilled.targets is not None:
        create(file, "targets", distilled.targets.detach().cpu().numpy())
    if distilled.views is not None:
        _fill_views(file, distilled.views)
    create(file, "classes", fixed_text(distilled.classes))
    preprocess = file.create_group("preprocess")
    set_attributes(preprocess, kind=distilled.preprocess.kind)
    for name, tensor in distilled.preprocess.state().items():
        create(preprocess, name, tensor.detach().cpu().numpy())
    decode = file.create_group("decode")
    multi_formation = distilled.multi_formation
    plain = {"factor": 1, "mode": "none"}
    set_attributes(decode, **(plain if multi_formation.is_identity else dataclasses.asdict(multi_formation)))
    set_attributes(file, format=SET.name, version=_version(distilled, coded), **distilled.attributes)
    set_attributes(file, sha256=checksum(*contents(file)))


def kept_coding(distilled: DistilledSet, dtype: Dtype | None) -> CodedPixels | None:
    """Return the coded pixels that a file stores in place of images, if it does."""
    return distilled.coded if dtype is None else None


def fill_coded(file: h5py.File, coded: CodedPixels) -> h5py.Group:
    """Write coded pixels, and return the group that holds them."""
    group = file.create_group("pixels")
    for name, column in coded.columns().items():
        create(group, name, column)
    set_attributes(group, **coded.about())
    return group


def _parse_coded(arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Scalar]) -> CodedPixels | None:
    """Return the coded pixels of a file, if it has any.

    Raises:
        ValueError: they make no sense.
    """
    columns = _below("pixels/", arrays)
    if not columns:
        return None
    about = {
        path.removeprefix("pixels@"): int(value)
        for path, value in attributes.items()
        if path.startswith("pixels@")
    }
    return CodedPixels.from_columns(columns, about)


def _version(distilled: DistilledSet, coded: CodedPixels | None) -> int:
    """Return the oldest version of the format that holds a set."""
    if distilled.targets is not None:
        return 5
    if coded is not None:
        return 4
    if distilled.compensators is not None:
        return 3
    return 1 if distilled.sample_weights is None and distilled.views is None else 2


def _signed(dtype: Dtype) -> Dtype:
    """Return the dtype of compensators where that of pixels is given: 8 bits hold no negative numbers."""
    return "float16" if dtype == "uint8" else dtype


def _parse_compensators(arrays: Mapping[str, np.ndarray]) -> Tensor | None:
    """Return the compensators of a file, if it has any.

    Raises:
        ValueError: they are of an unknown type.
    """
    compensators = arrays.get("compensators")
    if compensators is not None and str(compensators.dtype) not in ("float32", "float16"):
        raise ValueError("/compensators has an unknown type")
    return None if compensators is None else _decode(compensators, 1.0)


def _fill_views(file: h5py.File, views: Views) -> None:
    group = file.create_group("views")
    for name, column in views.columns().items():
        create(group, name, column.cpu().numpy())
    set_attributes(group, **views.about())


def _parse_views(
    arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Scalar], classes: int
) -> Views | None:
    """Return the views of a file, if it has any.

    Raises:
        UserError: they make no sense.
    """
    columns = _below("views/", arrays)
    if not columns:
        return None
    about = {path.removeprefix("views@"): value for path, value in attributes.items()}
    return Views.from_columns(columns, about, classes)


def _below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Return the data sets of a group as tensors, by their paths in it."""
    return {
        path.removeprefix(prefix): torch.from_numpy(array)
        for path, array in arrays.items()
        if path.startswith(prefix)
    }


def as_stored(images: Tensor, dtype: Dtype) -> Tensor:
    """Return pixels, float32, as they are read back from a file that stores them in a dtype."""
    return _decode(_encode(images, dtype), _scale(dtype))


def pixels_of(distilled: DistilledSet, dtype: Dtype = "float32") -> list[tuple[Tensor, Dtype]]:
    """Return what is stored of a set as pixels, on the CPU: its images and, if it has any, compensators.

    Returns:
        each with the dtype that it is stored in where that of pixels is ``dtype``.
    """
    images = (distilled.images.detach().cpu(), dtype)
    if distilled.compensators is None:
        return [images]
    return [images, (distilled.compensators.detach().cpu(), _signed(dtype))]


def _scale(dtype: Dtype) -> float:
    return 1 / 255 if dtype == "uint8" else 1.0


def _decode(pixels: np.ndarray, scale: float) -> Tensor:
    return torch.from_numpy(pixels).float().mul(scale)


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
    coded = _parse_coded(arrays, attributes)
    missing = {"images", "labels", "classes"} - set(arrays) - ({"images"} if coded else set())
    if missing or (not coded and str(arrays["images"].dtype) not in get_args(Dtype)):
        raise ValueError(f"/{min(missing)} is missing" if missing else "/images has an unknown type")
    soft, weights, targets = map(arrays.get, ("soft_labels", "sample_weights", "targets"))
    distilled = DistilledSet(
        images=coded.decode() if coded else _decode(arrays["images"], float(attributes["images@scale"])),
        labels=torch.from_numpy(arrays["labels"]),
        classes=tuple(name.decode() for name in arrays["classes"]),
        preprocess=from_state(str(attributes["preprocess@kind"]), _below("preprocess/", arrays)),
        soft_labels=None if soft is None else torch.from_numpy(soft),
        sample_weights=None if weights is None else torch.from_numpy(weights),
        views=_parse_views(arrays, attributes, len(arrays["classes"])),
        multi_formation=_multi_formation(attributes),
        compensators=_parse_compensators(arrays),
        targets=None if targets is None else torch.from_numpy(targets),
        coded=coded,
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
