"""torch.compile where it works; otherwise the eager function, with one notice."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from dsdistill.errors import causes, is_out_of_memory
from dsdistill.runtime.notice import Notify
from dsdistill.text import shortened


def why_unavailable(device: torch.device) -> str | None:
    """Return the reason why ``torch.compile`` cannot work for this device; None if it can."""
    if device.type == "cpu":
        has_compiler = _is_on_path("CXX", "g++", "clang++")
        return None if has_compiler else "no C++ compiler (g++ or clang++) is on PATH"
    try:
        import triton  # noqa: F401
    except ImportError:
        return 'triton is not installed (pip install "dsdistill[gpu]")'
    has_compiler = _is_on_path("CC", "cc", "gcc", "clang")
    return None if has_compiler else "triton needs a C compiler (gcc or clang) on PATH"


def _is_on_path(variable: str, *names: str) -> bool:
    """Whether one of these programs is installed, or the one that an environment variable names."""
    return any(shutil.which(name) for name in (os.environ.get(variable, ""), *names) if name)


def can_compile(device: torch.device, notify: Notify) -> bool:
    """Whether ``torch.compile`` can work for this device; if not, ``notify`` receives the reason."""
    reason = why_unavailable(device)
    if reason:
        notify(_without(reason))
    return reason is None


def compiles(device: torch.device, notify: Notify) -> bool:
    """Whether ``torch.compile`` works for this device, by compiling a function of a line.

    A decision that is written down rests on this, not on what is installed. ``notify`` receives the reason
    if it does not.
    """
    if not can_compile(device, notify):
        return False
    failed: list[str] = []

    def fallen_back(sentence: str) -> None:
        failed.append(sentence)
        notify(sentence)

    x = torch.ones(8, device=device, requires_grad=True)
    compile_or_eager(lambda x: torch.sin(x).sum(), device, fallen_back)(x)
    return not failed


def compile_or_eager(
    function: Callable[..., Any], device: torch.device, notify: Notify
) -> Callable[..., Any]:
    """Compile a function for fixed shapes with ``torch.compile``; keep it eager if that is not possible.

    Every call with new shapes compiles. If that fails, ``notify`` receives one notice, and this and all later
    calls run the eager function. Results are the same up to rounding.
    """
    if not can_compile(device, notify):
        return function
    return with_fallback(compiled(function), function, notify)


def compiled(function: Callable[..., Any], options: dict[str, Any] | None = None) -> Callable[..., Any]:
    """Return ``torch.compile`` of a function for fixed shapes, to be called by `with_fallback`.

    Even loading the compiler can fail, for want of a folder that it may write. So the first call loads it.
    """

    @functools.cache
    def load() -> Callable[..., Any]:
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns if CUDA is absent
        _quiet_workers()
        return torch.compile(function, dynamic=False, options=options)

    return lambda *args: load()(*args)


def _quiet_workers() -> None:
    """Have the compiler's worker processes say nothing: on Ctrl-C they would print tracebacks."""
    from torch._inductor import config

    if hasattr(config, "worker_suppress_logging"):  # newer versions of torch
        config.worker_suppress_logging = True


def with_fallback(fast: Callable[..., Any], safe: Callable[..., Any], notify: Notify) -> Callable[..., Any]:
    """Return a function that calls ``fast`` until its compiler fails, then ``safe``, with one notice.

    The first call may fail in any way: an error of the computation itself recurs in ``safe``. Later only the
    compiler's own errors count, as new shapes are compiled. A lack of memory is no such failure.
    """
    present = fast
    worked = False

    def call(*args: Any) -> Any:
        nonlocal present, worked
        if present is safe:
            return safe(*args)
        try:
            with _backward_too():
                result = fast(*args)
            worked = True
            return result
        except Exception as error:
            if not _is_of_compiler(error) and (worked or is_out_of_memory(error)):
                raise
            reason = cause(error)
        result = safe(*args)  # not in the except block, where the error keeps its frames' tensors alive
        present = safe
        notify(_without(reason))
        return result

    return call


@contextlib.contextmanager
def _backward_too() -> Iterator[None]:
    """Compile backward graphs along with forward ones inside this context.

    By default torch compiles them when the backward pass runs, where nothing could take their place.
    """
    from torch._functorch import config

    before = getattr(config, "force_non_lazy_backward_lowering", None)
    if before is None:  # older versions of torch
        yield
        return
    config.force_non_lazy_backward_lowering = True
    try:
        yield
    finally:
        config.force_non_lazy_backward_lowering = before


_COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")


def _is_of_compiler(error: BaseException) -> bool:
    """Whether the compiler raised an error, and not the function that it compiles."""
    return any(kind.__module__.startswith(_COMPILERS) for kind in type(error).__mro__)


_TELLING = re.compile(r"error|killed|no space|cannot|denied|not found|no such|failed", re.IGNORECASE)
_LONGEST = 160


def cause(error: BaseException) -> str:
    """Return in one short line why a compilation failed.

    The innermost error counts. If it is that of a C++ compiler, the first line of the compiler's output that
    tells of an error does, and not the long command.
    """
    *_, error = causes(error)
    text = getattr(error, "output", None) or _end_of_process(error) or str(error)
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    first = next(filter(_TELLING.search, lines), lines[0] if lines else type(error).__name__)
    return shortened(first, _LONGEST)


def _end_of_process(error: BaseException) -> str:
    """Say how a compiler ended that wrote nothing; empty for other errors."""
    if not isinstance(error, subprocess.CalledProcessError):
        return ""
    program, code = Path(error.cmd[0]).name, error.returncode
    return f"{program} " + (f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}")


def _without(reason: str) -> str:
    return f"running without torch.compile: {reason}"
