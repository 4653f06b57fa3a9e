"""Tables of Hugging Face's `datasets`: their columns of images and labels. The package is not imported."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dsdistill.data.items import as_label
from dsdistill.data.pictures import opened
from dsdistill.errors import UserError, quoted

_IMAGES = ("image", "img", "png", "jpg", "jpeg", "webp", "picture", "pixel_values")
_LABELS = ("label", "labels", "fine_label", "cls", "class", "target")
"""The usual names of columns, in the order of preference; those of a WebDataset are suffixes of files."""


def _package() -> Any:
    """Return the package if it was imported: without it there are no tables."""
    return sys.modules.get("datasets")


def is_table(value: Any) -> bool:
    """Whether a value is a `datasets.Dataset`."""
    package = _package()
    return package is not None and isinstance(value, package.Dataset)


def is_stream(value: Any) -> bool:
    """Whether a value is a `datasets.IterableDataset`."""
    package = _package()
    return package is not None and isinstance(value, package.IterableDataset)


def name_of(table: Any) -> str:
    """Return the name of the data set that a table comes from."""
    return str(table.info.dataset_name or table.info.builder_name or "Dataset")


class TableItems:
    """The images and labels of a `datasets.Dataset`."""

    def __init__(self, table: Any, what: str, roots: Sequence[Path] | None = None) -> None:
        """Find the columns.

        Args:
            table: of the package `datasets`.
            what: its name in errors.
            roots: folders outside which it may name no picture; default anywhere, as in one's own table.

        Raises:
            UserError: it has none of images or none of labels, or several of which none has a usual name.
        """
        if table.format["type"] == "custom":
            raise UserError(f"{what} has a transform; give it without, as with_format(None), or use map()")
        features, kinds = table.features, _package()
        of_images = [name for name, kind in features.items() if isinstance(kind, kinds.Image)]
        of_classes = [name for name, kind in features.items() if isinstance(kind, kinds.ClassLabel)]
        self._image = _column("images", of_images, _IMAGES, features, what)
        self._label = _column("labels", of_classes, _LABELS, features, what)
        self._what, self._roots = what, roots
        plain = table.select_columns([self._image, self._label]).with_format(None)
        if self._image in of_images:  # Pillow reads them here, and some formats not at all
            plain = plain.cast_column(self._image, kinds.Image(decode=False))
        elif _holds_arrays(features[self._image]):
            plain = plain.with_format("numpy")
        self._table = plain
        self._numbers: dict[str, int] | None = None
        self.classes: tuple[str, ...] | None = None
        if self._label in of_classes:
            self.classes = tuple(features[self._label].names)
        elif getattr(features[self._label], "dtype", "") == "string":
            self.classes = tuple(sorted(name for name in table.unique(self._label) if name is not None))
            self._numbers = {name: number for number, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        for index, row in enumerate(self._table):
            label = row[self._label]
            if self._numbers is not None:
                label = self._numbers.get(label)
            number = as_label(label, f"{self._what}: row {index}")
            with self._opened(row[self._image], index) as image:
                yield image, number

    @contextmanager
    def _opened(self, value: Any, index: int) -> Iterator[Any]:
        """Open an image, which is encoded or an array."""
        fields = value if isinstance(value, Mapping) else {"bytes": value}
        content, path = fields.get("bytes"), fields.get("path")
        if not isinstance(content, bytes) and path is None:
            if value is None or isinstance(value, Mapping):
                raise UserError(f"{self._what}: row {index} has no image; leave it out: filter()")
            yield value
            return
        if not isinstance(content, bytes) and not self._may_open(str(path)):
            raise UserError(
                f"{self._what}: row {index} names {quoted(str(path))}, which is not part of the data set; "
                "leave it out, or store the pictures in the table"
            )
        name = Path(path or f"of row {index} in {self._what}")
        with opened(name, content) as image:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="PIL")  # of large pictures and damaged metadata
                image.load()
            yield image

    def _may_open(self, path: str) -> bool:
        """Whether a picture lies where those of the data set do."""
        place = Path(os.path.abspath(path))
        return self._roots is None or any(place.is_relative_to(root) for root in self._roots)


def _holds_arrays(kind: Any) -> bool:
    """Whether the values of a column are nested lists of numbers."""
    return type(kind).__name__ in ("Array2D", "Array3D", "List", "LargeList", "Sequence", "list")


def _column(
    what: str, of_kind: list[str], usual: Iterable[str], features: Mapping[str, Any], table: str
) -> str:
    """Choose a column: the only one of the kind, else the first of a usual name.

    Raises:
        UserError: there is none.
    """
    if len(of_kind) == 1:
        return of_kind[0]
    if column := next((name for name in usual if name in (of_kind or features)), None):
        return column
    columns = ", ".join(of_kind or features)
    usual_name = "image" if what == "images" else "label"
    raise UserError(
        f"{table} has the columns {columns}, and none is known to hold the {what}; rename one: "
        f"rename_column(…, {usual_name!r})"
    )
