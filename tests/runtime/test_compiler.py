"""torch.compile, and what happens where it does not work."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from dsdistill.runtime import compiler

CPU = torch.device("cpu")


def test_a_cpu_needs_a_compiler_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    notices: list[str] = []
    reason = "no C++ compiler (g++ or clang++) is on PATH"
    assert compiler.why_unavailable(CPU) == reason
    assert not compiler.can_compile(CPU, notices.append)
    assert notices == [f"running without torch.compile: {reason}"]
    monkeypatch.setenv("CXX", "/bin/sh")
    assert compiler.why_unavailable(CPU) is None
    assert compiler.can_compile(CPU, notices.append)
    assert len(notices) == 1


def test_a_gpu_needs_triton_and_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "triton", None)
    assert compiler.why_unavailable(cuda) == "triton is not installed"
    monkeypatch.setitem(__import__("sys").modules, "triton", ModuleType("triton"))
    assert compiler.why_unavailable(cuda) == "triton needs a C compiler (gcc or clang) on PATH"
    monkeypatch.setenv("CC", "/bin/sh")
    assert compiler.why_unavailable(cuda) is None


def test_without_a_compiler_a_function_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "why_unavailable", lambda device: "no compiler")
    notices: list[str] = []
    assert compiler.compile_or_eager(torch.sin, CPU, notices.append) is torch.sin
    assert notices == ["running without torch.compile: no compiler"]


def test_with_a_compiler_a_function_is_compiled_for_fixed_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[dict[str, Any]] = []

    def compile(function: Callable[..., Any], **given: Any) -> Callable[..., Any]:
        options.append(given)
        return lambda x: 2 * function(x)

    monkeypatch.setattr(compiler, "why_unavailable", lambda device: None)
    monkeypatch.setattr(torch, "compile", compile)
    function = compiler.compile_or_eager(lambda x: x + 1, CPU, print)
    assert [function(1), function(2)] == [4, 6]
    assert options == [{"dynamic": False}]


def test_a_failing_first_call_falls_back_for_good() -> None:
    calls: list[str] = []
    notices: list[str] = []

    def fast(x: int) -> int:
        calls.append("fast")
        raise RuntimeError("\nno luck\nat all")

    def safe(x: int) -> int:
        calls.append("safe")
        return x + 1

    function = compiler.with_fallback(fast, safe, notices.append)
    assert [function(1), function(2)] == [2, 3]
    assert calls == ["fast", "safe", "safe"]
    assert notices == ["running without torch.compile: no luck"]


def test_an_error_without_words_is_named_by_its_type() -> None:
    def fast() -> None:
        raise KeyError

    notices: list[str] = []
    compiler.with_fallback(fast, lambda: None, notices.append)()
    assert notices == ["running without torch.compile: KeyError"]


def test_errors_of_the_caller_and_of_later_calls_are_raised() -> None:
    def invert(x: int) -> float:
        return 1 / x

    notices: list[str] = []
    with pytest.raises(ZeroDivisionError):
        compiler.with_fallback(invert, invert, notices.append)(0)
    assert notices == []
    function = compiler.with_fallback(invert, lambda x: 0.0, notices.append)
    assert function(2) == 0.5
    with pytest.raises(ZeroDivisionError):
        function(0)
