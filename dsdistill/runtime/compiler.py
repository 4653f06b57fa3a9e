"""torch.compile where it works; otherwise the eager function, with one notice."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch

from dsdistill.runtime.notice import Notify


def why_unavailable(device: torch.device) -> str | None:
    """Return the reason why ``torch.compile`` cannot work for this device; None if it can."""
    if device.type == "cpu":
        has_compiler = _is_on_path("CXX", "g++", "clang++")
        return None if has_compiler else "no C++ compiler (g++ or clang++) is on PATH"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "triton is not installed"
    has_compiler = _is_on_path("CC", "cc", "gcc", "clang")
    return None if has_compiler else "triton needs a C compiler (gcc or clang) on PATH"


def _is_on_path(variable: str, *names: str) -> bool:
    """Whether one of these programs is installed, or the one that an environment variable names."""
    return any(shutil.which(name) for name in (os.environ.get(variable, ""), *names) if name)


def can_compile(device: torch.device, notify: Notify) -> bool:
    """Whether ``torch.compile`` can work for this device; if not, ``notify`` receives the reason."""
    reason = why_unavailable(device)
    if reason:
        notify(f"running without torch.compile: {reason}")
    return reason is None


def compile_or_eager(
    function: Callable[..., Any], device: torch.device, notify: Notify
) -> Callable[..., Any]:
    """Compile a function for fixed shapes with ``torch.compile``; keep it eager if that is not possible.

    The first call compiles. If that fails, ``notify`` receives one notice, and this and all later calls run
    the eager function. Results are the same up to rounding.
    """
    if not can_compile(device, notify):
        return function
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns if CUDA is absent
    return with_fallback(torch.compile(function, dynamic=False), function, notify)


def with_fallback(fast: Callable[..., Any], safe: Callable[..., Any], notify: Notify) -> Callable[..., Any]:
    """Return a function that calls ``fast``; if its first call fails, ``safe`` always, with one notice."""
    working: list[Callable[..., Any]] = []  # empty before the first call

    def call(*args: Any) -> Any:
        if working:
            return working[0](*args)
        try:
            result = fast(*args)
            working.append(fast)
            return result
        except Exception as error:  # the compiler raises many types; an error of the caller recurs in safe
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
        result = safe(*args)  # not in the except block, where the error keeps its frames' tensors alive
        working.append(safe)
        notify(f"running without torch.compile: {reason}")
        return result

    return call
