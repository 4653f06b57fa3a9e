"""Find images, labels and what belongs to them among the values that a file of tensors holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsdistill.data.preprocess import Preprocess, from_state
from dsdistill.errors import UserError
from dsdistill.importing.files import read_file
from dsdistill.importing.source import Source, Space
from dsdistill.runtime.device import check_memory
from dsdistill.text import listing, plain

_IMAGES = ("images", "image", "images_syn", "image_syn", "x", "x_syn", "x_train", "train_images", "data")
_LABELS = ("labels", "label", "labels_syn", "label_syn", "y", "y_syn", "y_train", "train_labels")
_TARGETS = ("targets", "target")
_SOFT = ("soft_labels", "soft_label", "logits")
_RATES = ("learned_lr", "syn_lr", "lr")
_CLASSES = ("classes", "class_names")


def find(content: Any, path: Path, labels: Path | None = None) -> Source:
    """Return the images and labels in the content of a file.

    Args:
        content: a tensor of images; images and labels, and perhaps a learning rate, in a list or tuple; or a
            dict with names for them.
        path: of the file, for errors.
        labels: a file whose labels replace those in the content.

    Raises:
        UserError: there are no images in it, or what is beside them is of the wrong kind.
    """
    values = _named(content, path)
    state = {key: value for key, value in values.items() if isinstance(value, Tensor)}
    kind = values.get("preprocess")
    preprocess = from_state(kind, state) if isinstance(kind, str) else None
    hard = _first(values, _LABELS + _TARGETS)
    if labels is not None:
        hard = read_labels(labels)
    images, hard = _images(_tensor(_first(values, _IMAGES), "images", path), hard, path)
    soft = _first(values, _SOFT) if labels is None else None
    rate, classes = _first(values, _RATES), _first(values, _CLASSES)
    return Source(
        images=images,
        labels=None if hard is None else _tensor(hard, "labels", path),
        soft_labels=None if soft is None else _tensor(soft, "soft labels", path),
        are_logits=preprocess is not None,
        classes=None if classes is None else _texts(classes, path),
        space=_space(values, preprocess),
        preprocess=preprocess,
        lr=None if rate is None else number(rate, path),
    )


def read_labels(path: Path) -> Tensor:
    """Read a file of labels: a tensor, or a dict that names one.

    Raises:
        UserError: as `read_file`; or there are none in it.
    """
    content = read_file(path)
    if isinstance(content, Mapping):
        content = _first(content, _LABELS + _TARGETS + _SOFT)
    return _tensor(content, "labels", path)


def number(value: Any, path: Path) -> float:
    """Return a learning rate, which may be a tensor of one value.

    Raises:
        UserError: it is no single number above 0.
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(f"{path}: the learning rate is {_what(value)}, not a number above 0; save it as one")
    return float(value)


def _named(content: Any, path: Path) -> Mapping[Any, Any]:
    """Return content as a dict with the names that this module knows."""
    if isinstance(content, Tensor):
        return {"images": content}
    if isinstance(content, list | tuple) and 2 <= len(content) <= 3 and isinstance(content[0], Tensor):
        return dict(zip(("images", "labels", "lr"), content, strict=False))
    if isinstance(content, Mapping) and _first(content, _IMAGES) is not None:
        return content
    raise UserError(
        f"{path} holds {_what(content)}, and no images; save a tensor, (images, labels), or a dict with "
        "images and labels"
    )


def _what(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dict of {listing([str(key) for key in value], most=8) or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)} values"
    return f"{plain(repr(value), 60)}"


def _first(values: Mapping[Any, Any], names: Sequence[str]) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)


def _tensor(value: Any, what: str, path: Path) -> Tensor:
    if isinstance(value, list | tuple) and all(isinstance(each, int | float) for each in value):
        value = torch.tensor(value)
    if (
        not isinstance(value, Tensor)
        or value.is_complex()
        or value.is_quantized
        or value.layout != torch.strided
    ):
        raise UserError(
            f"{path}: the {what} are {_what(value)}, not a dense tensor of numbers; save them as one"
        )
    check_memory(f"the {what} in {path} take", 4 * value.numel())  # a few values may claim to be many
    return value.detach()


def _texts(value: Any, path: Path) -> tuple[str, ...]:
    if isinstance(value, list | tuple) and value and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise UserError(f"{path}: the classes are {_what(value)}, not a list of names; leave them out")


def _space(values: Mapping[Any, Any], preprocess: Preprocess | None) -> Space | None:
    """Return the space that the content names, as ``dsdistill export`` does."""
    if (space := values.get("space")) == "unit":
        return "unit"
    if space == "network" and preprocess is not None:
        return "zca" if preprocess.kind == "zca" else "standardised"
    return None


def _images(images: Tensor, labels: Any, path: Path) -> tuple[Tensor, Any]:
    """Bring images to [N,C,H,W], and labels along where images are given by class."""
    shape = list(images.shape)
    if images.dim() == 5:  # [classes, images of a class, C, H, W]
        if isinstance(labels, Tensor) and labels.shape[:2] == images.shape[:2]:
            labels = labels.flatten(0, 1)
        images = images.flatten(0, 1)
    if images.dim() == 3:
        images = images[:, None]
    if images.dim() == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.movedim(3, 1)
    if images.dim() != 4 or images.numel() == 0 or images.shape[1] not in (1, 3):
        raise UserError(
            f"{path}: the images have shape {shape}; save them as [N,C,H,W], [N,H,W,C] or [N,H,W] with 1 or "
            "3 channels"
        )
    return images, labels
