"""The hardware of a run: device, precision, memory and threads."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch

from dsdistill.errors import UserError
from dsdistill.runtime import launch
from dsdistill.runtime.notice import Notify, silent

# Device -----------------------------------------------------------------------------------------------------


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device of ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        UserError: the device is unknown or absent, or the same one for several processes.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:0") from None
    if device.index is not None and launch.is_several():
        raise UserError(
            f"each of several processes takes a device of its own, not {name!r}: say --device {device.type}"
        )
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(
                f"device {name!r} asked for, but torch finds {count} CUDA devices; use --device cpu"
            )
    elif device.type != "cpu":
        raise UserError(f"device {name!r} is not supported; use auto, cpu or cuda")
    return device


def wait(device: torch.device) -> None:
    """Wait until a device has computed all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# Precision --------------------------------------------------------------------------------------------------

Precision = Literal["fp32", "bf16"]


def resolve_precision(name: str, device: torch.device, notify: Notify = silent) -> Precision:
    """Return a precision; ``auto`` becomes bf16 if the hardware multiplies it natively, else fp32.

    Args:
        name: auto, fp32 or bf16.
        device: that computes.
        notify: receives a sentence if bf16 is asked for and the hardware only emulates it.

    Raises:
        UserError: there is no such precision.
    """
    if name == "auto":
        return "bf16" if _multiplies_bf16(device) else "fp32"
    if name not in ("fp32", "bf16"):
        raise UserError(f"unknown precision {name!r}; use auto, fp32 or bf16")
    if name == "bf16" and not _multiplies_bf16(device):
        notify("this hardware only emulates bf16, the precision asked for: fp32 would be faster")
    return name  # type: ignore[return-value]


def training_precision(name: str, device: torch.device, notify: Notify = silent) -> Precision:
    """Return the precision in which students and experts train; ``auto`` is fp32 on a CUDA device.

    That bf16 changes no accuracy was measured on CPUs alone. Elsewhere, and where a precision is named, this
    is `resolve_precision`.

    Raises:
        UserError: there is no such precision.
    """
    return resolve_precision("fp32" if name == "auto" and device.type == "cuda" else name, device, notify)


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    is_supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch has none in public
    return bool(is_supported and is_supported())


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """Compute matrix products in ``precision`` inside this context; fp32 changes nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Do not round float32 to TF32 in a GPU's convolutions inside this context; torch does so by default.

    Second-order gradients and trajectories need the precision, unless they are told to be in bf16, which is
    there for speed.
    """
    before = _set_tf32(False)
    try:
        yield
    finally:
        _set_tf32(before)


def _set_tf32(allowed: bool) -> bool:
    """Set whether a GPU's convolutions may round float32 to TF32; return the earlier setting.

    torch 2.9 warns that this switch is deprecated. The new one cannot be used yet: torch's compiler still
    reads this one, and fails if the two differ.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = allowed
    return before


# Memory -----------------------------------------------------------------------------------------------------


def quiet_allocator() -> bool:
    """Tell glibc to keep freed memory instead of returning it to the kernel.

    Otherwise large tensors are mapped and unmapped at every operation, and every page is faulted in anew.
    Call this from the entry point of a program, not on import: it changes the whole process.

    Returns:
        Whether it was done; False without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX
    settings = ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 1 << 28))
    return all([libc.mallopt(ctypes.c_int(key), ctypes.c_int(value)) == 1 for key, value in settings])


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes: resident memory of the process, or allocations on a CUDA device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def process_memory(device: torch.device) -> int | None:
    """Return the bytes that the process has in memory now; None on a GPU, or if the system does not tell."""
    if device.type != "cpu":
        return None
    try:
        with open("/proc/self/statm") as line:
            return int(line.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return peak_memory(device) or None


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak of a CUDA device; the peak of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def available_memory(device: torch.device) -> int | None:
    """Return the bytes free on the device; None if the system does not tell."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    with contextlib.suppress(OSError), open("/proc/meminfo") as lines:  # MemAvailable counts caches as free
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # the first on Windows
        return None


def check_memory(claim: str, needed: float, remedy: str = "") -> None:
    """Check that what is about to be allocated fits into the memory that the machine has free.

    Args:
        claim: the beginning of the error's sentence, with its verb: "the decoded images take".
        needed: bytes.
        remedy: the end of it.

    Raises:
        UserError: it does not fit.
    """
    free = available_memory(torch.device("cpu"))
    if free is not None and needed > free:
        end = f"; {remedy}" if remedy else ""
        raise UserError(f"{claim} {needed / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are free{end}")


# Threads ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute on ``count`` CPU threads inside this context; 0 leaves their number as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
