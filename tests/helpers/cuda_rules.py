"""What CUDA refuses of tensors on different devices, and what has the host wait for a device.

The functions take an operation as `torch.utils._python_dispatch` hands it on. ``is_there`` says of a tensor
whether it is on the CUDA device; all others are on the CPU, or on ``meta``, where nothing is computed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

IsThere = Callable[[Tensor], bool]
aten = torch.ops.aten

COPIES = {aten._to_copy.default, aten.copy_.default, aten.copy.default}

INDEXED = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._unsafe_index_put.default,
}
"""Operations whose indices may be on the CPU; they are copied then."""

SCALARS = {
    aten.fill_.Tensor,
    aten.masked_fill.Tensor,
    aten.masked_fill_.Tensor,
    aten._foreach_mul.Tensor,
    aten._foreach_mul_.Tensor,
    aten._foreach_add.Tensor,
    aten._foreach_add_.Tensor,
    aten._foreach_div.Tensor,
    aten._foreach_div_.Tensor,
}
"""Operations that take a number from the CPU, besides the pointwise ones."""

WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
    aten._linalg_check_errors.default,
}


class Misplaced(RuntimeError):
    """CUDA would refuse the operation, as its tensors are on different devices."""


def tensors_of(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among arguments, and in their lists."""
    for each in values:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, list | tuple):
            yield from tensors_of(each)


@functools.cache
def changed_places(function: Any) -> list[int]:
    """Return the places of the arguments that an operation changes."""
    arguments = enumerate(function._schema.arguments)
    return [place for place, each in arguments if each.alias_info and each.alias_info.is_write]


def check(function: Any, args: Sequence[Any], options: Mapping[str, Any], is_there: IsThere) -> None:
    """Check that the tensors of an operation are where CUDA wants them; some are on the device.

    Raises:
        Misplaced: they are not.
    """
    tensors = list(tensors_of((*args, *options.values())))
    others = [each for each in tensors if not is_there(each)]
    if function in COPIES or len(others) in (0, len(tensors)):
        return
    if function in INDEXED and is_there(args[0]):
        others = [each for each in tensors_of(args[2:3]) if not is_there(each)]  # the values; indices may be
    numbers = torch.Tag.pointwise in function.tags or function in SCALARS | INDEXED
    changed = tensors_of([args[place] for place in changed_places(function) if place < len(args)])
    if not all(map(is_there, changed)):
        numbers = False
    if others and not (numbers and all(each.dim() == 0 for each in others)):
        places = ", ".join(f"{list(each.shape)} on {each.device}" for each in tensors)
        raise Misplaced(f"{function}: tensors {places}")


def waits(function: Any, args: Sequence[Any], options: Mapping[str, Any], is_there: IsThere) -> Iterator[str]:
    """Yield a few words about each time that an operation has the host wait; some tensors are on the device.

    A copy from the host waits for all that the device has to do, unless it is ``non_blocking``.
    """
    if function in WAITS or (
        function is aten.repeat_interleave.Tensor and options.get("output_size") is None
    ):
        yield function.__name__
    elif function is aten._to_copy.default:
        target = options.get("device")
        to_device = target is None or target.type == "cuda"
        yield from _copy(is_there(args[0]), to_device, options.get("non_blocking", False))
    elif function is aten.copy_.default:
        blocking = (*args, options.get("non_blocking", False))[2]
        yield from _copy(is_there(args[1]), is_there(args[0]), blocking)
    elif function in INDEXED:
        yield from _index(function, args, is_there)


def _copy(from_device: bool, to_device: bool, non_blocking: bool) -> Iterator[str]:
    if from_device and not to_device:
        yield "copy to the host"
    elif to_device and not from_device and not non_blocking:
        yield "blocking copy to the device"


def _index(function: Any, args: Sequence[Any], is_there: IsThere) -> Iterator[str]:
    indices = [each for each in args[1] if each is not None]
    masks = [each for each in indices if each.dtype in (torch.bool, torch.uint8)]
    fills = "put" in function.__name__ and len(indices) == 1 and args[2].numel() == 1
    if masks and not fills:  # a mask and one value are `masked_fill`
        yield f"{function.__name__} by a mask"
    if not all(map(is_there, indices)):
        yield f"{function.__name__} by an index on the host"
