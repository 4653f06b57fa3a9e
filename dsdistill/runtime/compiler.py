"""torch.compile where it works, and the eager function with one notice where it does not."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    pass
from dsdistill.runtime.notice import Notify


def compiler_missing(device: torch.device) -> str | None:
    """Say why ``torch.compile`` cannot work for this device, or None where it can."""
    if device.type == "cpu":
        return None if _on_path("CXX", "g++", "clang++") else "no C++ compiler (g++ or clang++) is on PATH"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "triton is not installed"
    found = _on_path("CC", "cc", "gcc", "clang")
    return None if found else "triton needs a C compiler (gcc or clang) on PATH"


def _on_path(variable: str, *names: str) -> bool:
    """Whether there is one of these programs, or the one that an environment variable names."""
    return any(shutil.which(name) for name in (os.environ.get(variable, ""), *names) if name)


def can_compile(device: torch.device, notify: Notify) -> bool:
    """Whether ``torch.compile`` can work for this device; if not, ``notify`` is told why."""
    reason = compiler_missing(device)
    if reason:
        notify(f"running without torch.compile: {reason}")
    return reason is None


def compiled(function: Callable[..., Any], device: torch.device, notify: Notify) -> Callable[..., Any]:
    """``torch.compile`` a function for fixed shapes, or keep it eager with one notice where that cannot be.

    Compiling happens at the first call. A failure there is reported once and the eager function serves from
    then on, with the same results up to rounding.
    """
    if not can_compile(device, notify):
        return function
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of an absent CUDA
    return first_working(torch.compile(function, dynamic=False), function, notify)


def first_working(fast: Callable[..., Any], safe: Callable[..., Any], notify: Notify) -> Callable[..., Any]:
    """Serve calls by ``fast`` where its first one succeeds, else by ``safe`` with one notice."""
    serving: list[Callable[..., Any]] = []

    def call(*args: Any) -> Any:
        if serving:
            return serving[0](*args)
        try:
            result = fast(*args)
            serving.append(fast)
            return result
        except Exception as error:  # the compiler raises its own many types; anything real recurs in safe
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
        result = safe(*args)  # not above, where the error holds what its frames have allocated
        serving.append(safe)
        notify(f"running without torch.compile: {reason}")
        return result

    return call
