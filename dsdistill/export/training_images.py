"""The training images of a set, one after the other, as formats of single examples hold them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dsdistill.errors import UserError
from dsdistill.storage.set_file import read, to_uint8
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.extra_labels import left_out


@dataclass(frozen=True, eq=False)
class Example:
    """One training image.

    Attributes:
        png: its 8-bit picture.
        pixels: float32 [C,H,W] in unit space, nothing clipped or rounded.
        logits: float32 [K], or None.
    """

    png: bytes
    pixels: NDArray[np.float32]
    label: int
    logits: NDArray[np.float32] | None


class TrainingImages:
    """The training images of a set's file; those of a multi-formation or of compensators are decoded.

    Raises:
        UserError: as `set_file.read`; or the images have neither 1 nor 3 channels.
    """

    def __init__(self, path: Path) -> None:
        """Read a set."""
        stored = read(path)
        if (channels := stored.images.shape[1]) not in (1, 3):
            raise UserError(f"pictures have 1 or 3 channels, {path} has {channels}; export it as .pt instead")
        self.dataset = DistilledDataset(stored, "unit")

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Example]:
        """Yield the images class by class."""
        soft = self.dataset.soft_labels
        for number, (image, bytes_) in enumerate(zip(self.dataset.images, self._bytes, strict=True)):
            logits = None if soft is None else soft[number].numpy()
            yield Example(png(bytes_), image.numpy(), int(self.dataset.labels[number]), logits)

    @cached_property
    def _bytes(self) -> Tensor:
        return to_uint8(self.dataset.images)

    def description(self) -> dict[str, Any]:
        """Return what readers need beside the images, as JSON has it: classes, and how to preprocess."""
        preprocess = self.dataset.preprocess
        small = {name: value.tolist() for name, value in preprocess.state().items() if value.dim() < 2}
        state = small if preprocess.kind == "standardise" else {}
        return {"classes": list(self.dataset.classes), "preprocess": {"kind": preprocess.kind, **state}}

    def dropped(self) -> list[str]:
        """Return sentences on what of the set a file of single examples does not hold."""
        sentences = []
        if not self.dataset.is_plain:
            stored = int(self.dataset.stored.sum())
            sentences.append(
                f"the {stored} stored images are written as the {len(self)} that they decode into"
            )
        if self.dataset.preprocess.kind == "zca":
            sentences.append("the whitening is left out: pixels are in unit space; the .h5 and a .pt hold it")
        sentences += left_out(self.dataset, ("soft_labels",))
        return sentences


def png(pixels: Tensor) -> bytes:
    """Encode uint8 [C,H,W] of 1 or 3 channels."""
    from PIL import Image

    array = pixels.permute(1, 2, 0).contiguous().numpy()
    picture = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(picture, "PNG")
    return picture.getvalue()


def npy(array: NDArray[np.float32]) -> bytes:
    """Encode an array as numpy's file of one."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def as_json(value: Any) -> bytes:
    """Encode values as JSON."""
    return json.dumps(value, ensure_ascii=False).encode()
