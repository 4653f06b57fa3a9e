"""torch.compile, and what happens where it does not work."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dsdistill.runtime import compiler
from dsdistill.runtime.signals import Interrupted, Stopped
from tests.helpers.compilers import CompilerError

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
    assert compiler.why_unavailable(cuda) == 'triton is not installed (pip install "dsdistill[gpu]")'
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
    monkeypatch.setattr(compiler, "_quiet_workers", lambda: None)  # it loads the compiler
    monkeypatch.setattr(torch, "compile", compile)
    function = compiler.compile_or_eager(lambda x: x + 1, CPU, print)
    assert [function(1), function(2)] == [4, 6]
    assert options == [{"dynamic": False, "options": None}]


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


def test_errors_of_the_computation_are_raised_as_they_are() -> None:
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


def test_a_compiler_that_fails_later_falls_back_for_good() -> None:
    calls: list[int] = []

    def fast(x: int) -> int:
        calls.append(x)
        if x > 1:
            raise CompilerError("new shapes, and no space left")
        return x

    notices: list[str] = []
    function = compiler.with_fallback(fast, lambda x: 10 * x, notices.append)
    assert [function(x) for x in (1, 1, 2, 1)] == [1, 1, 20, 10]
    assert calls == [1, 1, 2]
    assert notices == ["running without torch.compile: new shapes, and no space left"]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_lack_of_memory_is_no_failure_of_the_compiler(error: Exception) -> None:
    def fast() -> None:
        raise error

    with pytest.raises(type(error)):
        compiler.with_fallback(fast, lambda: None, pytest.fail)()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Stopped(Interrupted(2))])
def test_a_stop_is_no_failure_of_the_compiler(stop: BaseException) -> None:
    def fast() -> None:
        raise stop

    with pytest.raises(type(stop)):
        compiler.with_fallback(fast, lambda: None, pytest.fail)()


def test_backward_graphs_are_compiled_where_a_failure_is_caught() -> None:
    from torch._functorch import config

    seen: list[bool] = []
    before = config.force_non_lazy_backward_lowering
    function = compiler.with_fallback(
        lambda: seen.append(config.force_non_lazy_backward_lowering), lambda: None, pytest.fail
    )
    function()
    assert seen == [True]
    assert config.force_non_lazy_backward_lowering is before


OUTPUT = b"In file included from x.h\ncc1plus: fatal error: x: No space left on device\n" + b"note\n" * 9000


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            subprocess.CalledProcessError(1, ["/usr/bin/g++", "x.cpp"], OUTPUT),
            "cc1plus: fatal error: x: No space left on device",
        ),
        (subprocess.CalledProcessError(-9, ["/usr/bin/g++", "x.cpp"], b""), "g++ was killed by signal 9"),
        (subprocess.CalledProcessError(4, ["/usr/bin/g++", "x.cpp"]), "g++ failed with exit code 4"),
        (ValueError("x" * 95_000), "x" * 158 + " …"),
        (ValueError("two\n  lines"), "two"),
        (KeyError(), "KeyError"),
    ],
)
def test_the_cause_is_one_short_line(error: Exception, reason: str) -> None:
    outer = CompilerError("backend='inductor' raised: " + "long " * 1000)
    outer.__cause__ = RuntimeError("C++ compile error")
    outer.__cause__.inner_exception = error  # type: ignore[attr-defined]
    for each in (error, outer):
        assert compiler.cause(each) == reason


def failing_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch, good: int) -> None:
    """Install a C++ compiler that works a few times and then finds the disk full."""
    program = folder / "failing-g++"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *--version*) exec g++ "$@";; esac\n'
        f"echo >> {folder}/count\n"
        f'test $(wc -l < {folder}/count) -le {good} && exec g++ "$@"\n'
        "echo 'fatal error: No space left on device' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "cache"))
    for probe in ("TORCHINDUCTOR_VEC_ISA_OK", "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS"):
        monkeypatch.setenv(probe, "0")  # which calls the compiler, too


PROGRAM = """
import torch
from dsdistill.runtime import compiler

def function(x, weight):
    return (torch.sin(x) * weight).cos().sum()

said = []
call = compiler.compile_or_eager(function, torch.device("cpu"), said.append)
for size in (4, 4, 5):
    x, weight = torch.arange(size).float(), torch.ones(size, requires_grad=True)
    (grad,) = torch.autograd.grad(call(x, weight), weight)
    (plain,) = torch.autograd.grad(function(x, weight), weight)
    torch.testing.assert_close(grad, plain)
    print(*said)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_disk_that_gets_full_while_graphs_are_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler finds it full in the middle: at the time of writing where the backward graph is due."""
    failing_compiler(tmp_path, monkeypatch, good=1)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    line = "running without torch.compile: fatal error: No space left on device"
    assert done.stdout.splitlines()[-1] == line
