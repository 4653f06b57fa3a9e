"""How many bytes of tensors a computation holds, counted operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_HEAP, _HEAP_DUAL = 0.65, 1.1
"""What the heap of the C library leaves unused between maps, as a share of them; measured. Torch asks for
aligned blocks, and a freed block is a little too small for the next request of its size. Passes of second
order have blocks of more sizes, unless they are compiled."""

_WORKSPACE = 24_000_000
"""Bytes that torch's kernels hold besides tensors on a CPU: reordered weights, generated code, threads."""

_COMPILER = 80_000_000
"""Bytes of torch's compiler and what it has made, where passes are compiled."""


class Allocations(TorchDispatchMode):
    """Counts the tensors that are made inside this context; those that exist before are not counted.

    What an operation allocates for itself, and frees before it returns, is not seen; nor is compiled code.

    Attributes:
        alive: bytes of those that are still there.
        peak: the most that ``alive`` was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._before: set[int] = set()
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute, and count the results."""
        input_storages = {
            _storage(leaf)._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)
        }
        results = func(*args, **(kwargs or {}))
        self._forget()
        for leaf in tree_leaves(results):
            if isinstance(leaf, Tensor):
                self._count(_storage(leaf), input_storages)
        self.peak = max(self.peak, self.alive)
        return results

    def count(self) -> int:
        """Return the bytes that are alive now."""
        self._forget()
        return self.alive

    def _count(self, storage: torch.UntypedStorage, input_storages: set[int]) -> None:
        if storage._cdata not in self._storages and storage._cdata not in input_storages:
            self._storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
            self.alive += storage.nbytes()

    def _forget(self) -> None:
        for key in [key for key, (reference, _) in self._storages.items() if reference.expired()]:
            self.alive -= self._storages.pop(key)[1]


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def peak_of(function: Callable[[], Any]) -> int:
    """Return the most bytes of new tensors that are alive at once while a function runs.

    >>> peak_of(lambda: torch.ones(4).exp().exp())  # float32: two vectors at a time
    32
    """
    with Allocations() as allocations:
        function()
    return allocations.peak


def beside_tensors(maps: int, device: torch.device, compiled: bool, second_order: bool = False) -> int:
    """Return the bytes that a process takes besides its tensors: none on a GPU.

    Args:
        maps: bytes of the tensors that are made and freed in every step.
        device: that computes.
        compiled: whether passes are compiled.
        second_order: whether gradients of gradients are among them.
    """
    if device.type != "cpu":
        return 0
    unused = int((_HEAP_DUAL if second_order and not compiled else _HEAP) * maps)
    return unused + _WORKSPACE + (_COMPILER if compiled else 0)
