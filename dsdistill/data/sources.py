"""What `dataset=` takes: names and paths, and data in memory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from dsdistill.data.arrays import check_names
from dsdistill.errors import UserError, quoted

_NAME = re.compile(r"[\w.+-][\w .+-]{0,99}")


class Pairs(Protocol):
    """Images with labels, by position: a Dataset of torch, of Hugging Face, or a list of pairs."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


Array: TypeAlias = Tensor | NDArray[Any]
SplitData: TypeAlias = tuple[Array, Array | Sequence[int]] | Dataset[Any] | Pairs
"""One split: arrays of images and labels, or a Dataset of torch or of Hugging Face."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images in memory, with the names that they do not tell themselves.

    >>> images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
    >>> pets = dsdistill.ImageData((images, labels), classes=("cat", "dog"), name="pets")
    >>> run = dsdistill.distill("pets.h5", dataset=pets, ipc=1, network="convnet2-w8", iterations=1)
    >>> dsdistill.load("pets.h5").classes
    ('cat', 'dog')

    A split is one of these:

    - ``(images, labels)``: tensors or numpy arrays. Images are [N,H,W], [N,H,W,C] or [N,C,H,W] with 1 or 3
      channels: uint8, floats in 0..1, or numbers in 0..255, which their largest value decides. Labels are the
      integers 0..K-1, [N].
    - a map-style `torch.utils.data.Dataset`, whose items are (image, label): the image of Pillow, or a tensor
      or array of one image. It is read once, in order, and kept as uint8.
    - a `datasets.Dataset`, with a column of images and one of labels.

    Args:
        train: the split to distil, or all the data.
        test: the split to test on; without it, a part of ``train`` is held out.
        classes: names of the classes in the order of the labels; default those of a Dataset, else "0" to
            "K-1".
        name: of the data, which files and reports call ``memory:NAME``; default what kind of data they are.

    Raises:
        UserError: a name is unfit.
    """

    train: SplitData
    test: SplitData | None = None
    classes: Sequence[str] | None = None
    name: str = ""

    def __repr__(self) -> str:
        test = "held out of train" if self.test is None else _split(self.test)
        classes = "" if self.classes is None else f", {len(self.classes)} classes"
        name = f" {self.name}" * bool(self.name)
        return f"<ImageData{name}: train {_split(self.train)}, test {test}{classes}>"

    def __post_init__(self) -> None:
        if self.name and not _NAME.fullmatch(self.name):
            raise UserError(
                f"name={quoted(self.name)} is unfit for files; take letters, digits, spaces and _ . + -"
            )
        if self.classes is not None:
            if isinstance(self.classes, str) or not all(isinstance(name, str) for name in self.classes):
                raise UserError("classes= takes a list of names, one for each label")
            check_names(tuple(self.classes), "classes=")


def _split(data: Any) -> str:
    """Say what a split is, without its values."""
    if isinstance(data, tuple) and len(data) == 2:
        return f"({', '.join(map(_split, data))})"
    kind, shape = type(data).__name__, getattr(data, "shape", None)
    if shape is not None and not isinstance(data, Dataset):
        return f"{kind} {'x'.join(map(str, shape))}"
    try:
        return f"{kind} of {len(data)}"
    except TypeError:
        return kind


DataSource: TypeAlias = str | Path | ImageData | Mapping[str, SplitData] | SplitData
"""A catalogue name, ``folder:PATH``, ``npz:PATH``, ``hf:NAME`` or ``hf:PATH``; or data in memory: an
`ImageData`, one split alone, or a mapping with ``train`` and ``test``, such as a `datasets.DatasetDict`."""
