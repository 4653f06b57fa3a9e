"""A distilled set as one .pt file that torch reads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dsdistill.files import check_replaceable, expanded, replace
from dsdistill.storage.set_file import read
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.extra_labels import left_out

_LABELS = ("soft_labels", "sample_weights", "targets")


def export_pt(path: str | Path, out: str | Path, space: Literal["network", "unit"] = "network") -> list[str]:
    """Write a set as one .pt file, a plain dict that ``torch.load(out, weights_only=True)`` reads.

    It holds training images: a multi-formation is decoded, and compensators are added, because readers of the
    file do not decode.

    Its keys: ``images`` float32 [N,C,H,W] in ``space``, ``labels`` int64 [N], ``soft_labels`` float32
    [N,K], ``sample_weights`` float32 [N] and ``targets`` float32 [N,d] (only if the set has them),
    ``classes`` (list of str), ``space``, ``preprocess`` (the kind) and the preprocessing's tensors by name:
    ``mean`` and ``std`` if it standardises.

    Returns:
        a sentence on labels that are left out, if any are.

    Raises:
        UserError: as `set_file.read`; the space is unknown; or ``out`` cannot be written or is another kind
            of file.
    """
    out = expanded(out)
    check_replaceable(out, ".pth" if out.suffix.lower() == ".pth" else ".pt")
    dataset = DistilledDataset(read(path), space)
    content: dict[str, Tensor | list[str] | str] = {
        "images": dataset.images,
        "labels": dataset.labels,
        "classes": list(dataset.classes),
        "space": space,
        "preprocess": dataset.preprocess.kind,
        **dataset.preprocess.state(),
    }
    for name in _LABELS:
        if (labels := getattr(dataset, name)) is not None:
            content[name] = labels
    buffer = io.BytesIO()
    torch.save(content, buffer)
    replace(out, buffer.getbuffer())
    return left_out(dataset, _LABELS)
