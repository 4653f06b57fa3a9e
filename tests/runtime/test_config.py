"""Options of the computation: every ``auto`` is decided, and the decision can be written down."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from dsdistill.runtime import compiled_runs
from dsdistill.runtime.config import ComputeConfig

CPU = torch.device("cpu")


def test_a_long_run_that_cannot_be_compiled_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    monkeypatch.setattr("dsdistill.runtime.compiler.compiles", lambda device, notify: True)
    assert ComputeConfig().decide(CPU, 10**12, notices.append, {}).compile is True
    monkeypatch.undo()
    monkeypatch.setattr("dsdistill.runtime.compiler.why_unavailable", lambda device: "no compiler")
    assert ComputeConfig().decide(CPU, 10, notices.append, {}).compile is False
    assert notices == []
    for config in (ComputeConfig(), ComputeConfig(compile=True)):  # what is recorded is what happens
        assert config.decide(CPU, 10**12, notices.append, {}).compile is False
        assert notices.pop() == "running without torch.compile: no compiler"
        assert notices == []


def test_no_auto_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdistill.runtime.device._multiplies_bf16", lambda device: True)
    monkeypatch.setattr("dsdistill.runtime.compiler.compiles", lambda device, notify: True)
    config = ComputeConfig().decide(CPU, 10, print, {})
    expected = ComputeConfig(
        device="cpu", precision="bf16", compile=False, threads=torch.get_num_threads(), chunk=0, class_chunk=0
    )
    assert config == expected
    explicit = ComputeConfig(device="cpu", precision="fp32", compile=True, chunk=3, class_chunk=2, threads=1)
    assert explicit.decide(CPU, 10, print, {}) == explicit


@pytest.mark.parametrize(("native", "said"), [(True, []), (False, ["emulates bf16"])])
def test_a_precision_that_is_only_emulated_is_said_once(
    monkeypatch: pytest.MonkeyPatch, native: bool, said: list[str]
) -> None:
    monkeypatch.setattr("dsdistill.runtime.device._multiplies_bf16", lambda device: native)
    notices: list[str] = []
    for precision in ("auto", "fp32"):
        ComputeConfig(precision=precision).decide(CPU, 10, notices.append, {})
    assert notices == []
    assert ComputeConfig(precision="bf16").decide(CPU, 10, notices.append, {}).precision == "bf16"
    assert len(notices) == len(said)
    assert all(part in notice for part, notice in zip(said, notices, strict=True))


def test_a_short_run_is_compiled_where_its_code_is_on_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("dsdistill.runtime.compiler.compiles", lambda device, notify: True)
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))
    options, short = {"network": "convnet"}, 10**8  # pixels, fewer than a minute of compiling pays for

    def compiled(pixels: int = short, chunk: int = 0) -> bool | str:
        return ComputeConfig(chunk=chunk).decide(CPU, pixels, print, options).compile

    assert compiled() is False
    compiled_runs.remember(ComputeConfig().decide(CPU, short, print, options).code(options))
    assert compiled() is True
    assert compiled(pixels=10**7) is False  # not even seconds pay
    assert compiled(chunk=3) is False  # other code
    options["network"] = "mlp"
    assert compiled() is False
    options["network"] = "convnet"
    shutil.rmtree(tmp_path / "code")
    assert compiled() is False
