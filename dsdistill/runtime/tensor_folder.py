"""Tensors by key in files of a folder: what is computed once, and found again by a run that goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, MutableMapping
from pathlib import Path

import torch
from torch import Tensor

from dsdistill import files
from dsdistill.runtime import tensors

Value = Tensor | tuple[Tensor, ...]
"""A tensor, or several."""


class TensorFolder(MutableMapping[Hashable, Value]):
    """A mapping whose values lie in files, one for each key, written atomically and verified when read.

    A value that is damaged or gone is none: whoever looks for it computes it anew. Keys tell by their
    ``repr``. Iteration and length are about the keys of this process.
    """

    def __init__(self, folder: Path, prefix: str, device: torch.device) -> None:
        """Name the files; nothing is read or written.

        Args:
            folder: that is there by the first write.
            prefix: of the files' names.
            device: that values come to.
        """
        self._folder, self._prefix, self._device = folder, prefix, device
        self._keys: dict[Hashable, None] = {}

    def __getitem__(self, key: Hashable) -> Value:
        """Return a value.

        Raises:
            KeyError: there is none, or it is damaged.
        """
        try:
            found, metadata = tensors.read(self._file(key))
        except (OSError, ValueError) as error:
            raise KeyError(key) from error
        if metadata.get("key") != repr(key):
            raise KeyError(key)
        values = tuple(found[name].to(self._device) for name in sorted(found))
        return values[0] if len(values) == 1 else values

    def __setitem__(self, key: Hashable, value: Value) -> None:
        """Write a value.

        Raises:
            UserError: it cannot be written.
        """
        parts = value if isinstance(value, tuple) else (value,)
        named = {f"{number:03d}": part for number, part in enumerate(parts)}
        tensors.write(self._file(key), named, {"key": repr(key)})
        self._keys[key] = None

    def __delitem__(self, key: Hashable) -> None:
        """Remove a value's file."""
        files.remove(self._file(key))
        self._keys.pop(key, None)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def _file(self, key: Hashable) -> Path:
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:24]
        return self._folder / f"{self._prefix}{name}.safetensors"
