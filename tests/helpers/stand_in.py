"""A stand-in for a CUDA device, on a machine without one: what CUDA refuses fails here, too.

Inside `stand_in` there is a device ``cuda:0``. A tensor on it is a `StandIn`: it says that it is there, has
real values, and every operation on it is computed on the CPU. But one that mixes it with tensors of the CPU
raises `Misplaced`, by the rules of CUDA (`cuda_rules.py`), and `Device` writes down every operation that
would have the host wait for the device.

C++ takes a `StandIn` for a tensor on torch's ``meta`` device, because torch differentiates on that without
any hardware. So what C++ allocates on ``meta`` for itself belongs to the stand-in; `_Calls` tells it from
what the package allocates there.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import dsdistill
from tests.helpers import cuda_rules
from tests.helpers.cuda_rules import Misplaced, changed_places, tensors_of

CUDA, META, CPU = torch.device("cuda", 0), torch.device("meta"), torch.device("cpu")
_PACKAGE = f"{Path(dsdistill.__file__).parent}/"


# What the package sees --------------------------------------------------------------------------------------


class StandIn(Tensor):
    """A tensor on the stand-in. ``inner`` holds its values on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> StandIn:
        wrapper: StandIn = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=META,
        )
        wrapper.inner = inner
        return wrapper

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self.inner!r} on the stand-in"

    def to(self, *args: Any, **options: Any) -> Tensor:
        """Move or convert; a tensor that is there already, and of the dtype, is returned as it is."""
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        copy = options.pop("copy", False)
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **options)  # type: ignore[attr-defined]
        dtype, given = dtype or self.dtype, {} if memory_format is None else {"memory_format": memory_format}
        if device is not None and device.type == META.type:
            with _asked_for(device):
                return self.inner.to(META, dtype).requires_grad_(self.requires_grad)
        if device is not None and device.type != CUDA.type:
            return Tensor.to(self, device, dtype, non_blocking=non_blocking, **given)
        if dtype == self.dtype and not copy and memory_format is None:
            return self
        return Tensor.to(self, dtype, copy=copy, **given)

    def cuda(self, *_: Any, **__: Any) -> Tensor:
        return self

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        return self.to(CPU)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, **{"device": CUDA, **options})

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        raise AssertionError(f"{function} outside of its device")


class _Stream(torch.Generator):
    """A generator that says which device it is of, and draws on the CPU."""

    there: torch.device
    device = property(lambda self: self.there)  # type: ignore[assignment]

    def __new__(cls, device: torch.device | str = CPU) -> _Stream:
        stream: _Stream = super().__new__(cls)
        stream.there = torch.device(device)
        return stream


_CUDA: dict[str, Any] = {
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "is_initialized": lambda: False,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_name": lambda device=None: "a stand-in",
    "get_device_capability": lambda device=None: (7, 5),
    "mem_get_info": lambda device=None: (1 << 36, 1 << 36),
    "max_memory_allocated": lambda device=None: 0,
    "memory_allocated": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
    "synchronize": lambda device=None: None,
    "manual_seed_all": lambda seed: None,
}
"""What `torch.cuda` says of the stand-in."""


# What the calls ask for -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """What the call at hand asks for by name, and C++ would not tell."""

    meta: bool = False
    stream: torch.device | None = None


_asked = _Asked()


@contextlib.contextmanager
def _asked_for(device: torch.device | None, stream: torch.Generator | None = None) -> Iterator[None]:
    """Note which device and which generator the calls inside ask for."""
    global _asked
    before = _asked
    _asked = _Asked(device is not None and device.type == META.type, stream.device if stream else None)
    try:
        yield
    finally:
        _asked = before


class _Calls(TorchFunctionMode):
    """Notices that a call asks for ``meta`` by name, and which device its generator is of."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        options = options or {}
        named = [each for each in args[1:3] if isinstance(each, torch.device)]  # as of `Tensor.to`
        device, stream = options.get("device", named[0] if named else None), options.get("generator")
        if device is None and stream is None:
            return function(*args, **options)
        with _asked_for(None if device is None else torch.device(device), stream):
            return function(*args, **options)


def _is_stand_in(device: torch.device) -> bool:
    return device.type == CUDA.type or (device.type == META.type and not _asked.meta)


# What is computed -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wait:
    """An operation that has the host wait for the device.

    Attributes:
        operation: its name, and for a copy its direction.
        place: files and lines of the package that call it, innermost first; empty outside the package.
    """

    operation: str
    place: str

    def __str__(self) -> str:
        return f"{self.operation} at {self.place or 'no line of the package'}"


@dataclass
class Device:
    """The stand-in.

    Attributes:
        waits: of the host for the device, in order.
    """

    waits: list[Wait] = field(default_factory=list)

    @contextlib.contextmanager
    def counting(self) -> Iterator[list[Wait]]:
        """Collect, in the list yielded, what has the host wait inside this context."""
        before, self.waits = self.waits, []
        try:
            yield self.waits
        finally:
            self.waits = before


def _package_lines() -> Iterator[str]:
    """Yield file and line of each call in the package that is under way, the innermost first."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            yield f"{file.removeprefix(_PACKAGE)}:{frame.f_lineno}"
        frame = frame.f_back


class _Computed(TorchDispatchMode):
    """Computes on the CPU what is to be computed on the stand-in, if CUDA would."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        options = dict(options or {})
        tensors = list(tensors_of((*args, *options.values())))
        on_device = any(map(_is_there, tensors))
        target = options.get("device")
        to_device = target is not None and _is_stand_in(target)
        if to_device and not on_device and any(each.is_meta for each in tensors):
            to_device = False  # all is on meta, and stays there
        _check_stream(function, options, on_device or to_device)
        if not on_device and not to_device:
            return function(*args, **options)
        if to_device:
            options["device"] = CUDA  # also where C++ says meta
        cuda_rules.check(function, args, options, _is_there)
        for operation in cuda_rules.waits(function, args, options, _is_there):
            self._device.waits.append(Wait(operation, " < ".join(itertools.islice(_package_lines(), 3))))
        if to_device:
            options["device"] = CPU
        result = function(*_inner(args), **{name: _inner(value) for name, value in options.items()})
        leaves = target is not None and not to_device
        return _wrapped(function, args, result, leaves)


def _is_there(tensor: Tensor) -> bool:
    return isinstance(tensor, StandIn)


def _check_stream(function: Any, options: dict[str, Any], on_device: bool) -> None:
    """Refuse a generator of another device than what it draws."""
    if options.get("generator") is None or _asked.stream is None:
        return
    if (_asked.stream.type == CUDA.type) != on_device:
        raise Misplaced(f"{function}: a generator of {_asked.stream} draws for another device")


def _inner(value: Any) -> Any:
    """Return a value, or the values of a list, as they are on the CPU."""
    if isinstance(value, StandIn):
        return value.inner
    return type(value)(map(_inner, value)) if type(value) in (list, tuple) else value


def _wrapped(function: Any, args: Sequence[Any], result: Any, leaves: bool) -> Any:
    """Return a result on the stand-in, unless it leaves it. What is changed in place is the argument."""
    arguments = {id(each.inner): each for each in tensors_of(args) if isinstance(each, StandIn)}
    in_place = bool(changed_places(function))

    def wrap(value: Any) -> Any:
        if type(value) in (list, tuple):
            return type(value)(map(wrap, value))
        if not isinstance(value, Tensor) or isinstance(value, StandIn):
            return value
        if in_place and id(value) in arguments:
            return arguments[id(value)]
        return value if leaves or value.is_meta else StandIn(value)

    enabled = torch.is_inference_mode_enabled()
    if not (enabled and function.is_view and not args[0].is_inference()):
        return wrap(result)
    with torch.inference_mode(False):  # a view is what its base is
        return wrap(result)


# The device -------------------------------------------------------------------------------------------------


_alike = torch._has_compatible_shallow_copy_type


def _of_one_device(one: Tensor, other: Tensor) -> bool:
    """Whether a module that is moved may put the values of one tensor into the other."""
    return _is_there(one) == _is_there(other) and _alike(one, other)


@contextlib.contextmanager
def stand_in() -> Iterator[Device]:
    """Have a CUDA device inside this context, which is the stand-in."""
    import torch._dynamo  # slow, and it looks at what is patched below as it is loaded

    device = Device()
    torch._C._ensureCUDADeviceGuardSet()  # type: ignore[attr-defined]  # by which torch asks for the device
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _CUDA.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch, "Generator", _Stream)
        patch.setattr(torch, "_has_compatible_shallow_copy_type", _of_one_device)
        torch._C._set_only_lift_cpu_tensors(True)  # type: ignore[attr-defined]  # `torch.tensor` copies in view
        try:
            with _Calls(), _Computed(device):
                yield device
        finally:
            torch._C._set_only_lift_cpu_tensors(False)  # type: ignore[attr-defined]
