"""A compiler that fails once it has begun."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

NOTICE = "running without torch.compile: no space left on device"


class CompilerError(RuntimeError):
    """As torch's compiler raises them."""


CompilerError.__module__ = "torch._inductor.exc"


def break_compiler(monkeypatch: pytest.MonkeyPatch, good: int = 1) -> None:
    """Have every compiled function work for some calls, as if compiled, and then fail to be compiled anew."""

    def compile(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        calls = 0

        def call(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > good:
                raise CompilerError("no space left on device")
            return function(*args)

        return call

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr("dsdistill.runtime.compiler.why_unavailable", lambda device: None)
    monkeypatch.setattr("dsdistill.runtime.compiler.compiles", lambda device, notify: True)
    monkeypatch.setattr("dsdistill.runtime.compiler._quiet_workers", lambda: None)
