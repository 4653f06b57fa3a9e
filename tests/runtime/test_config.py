"""Options of the computation: every ``auto`` is decided, and the decision can be written down."""

from __future__ import annotations

import pytest
import torch

from dsdistill.runtime.config import ComputeConfig

CPU = torch.device("cpu")


def test_a_long_run_that_cannot_be_compiled_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    monkeypatch.setattr("dsdistill.runtime.compiler.why_unavailable", lambda device: None)
    assert ComputeConfig().decided(CPU, 10**12, notices.append).compile is True
    monkeypatch.setattr("dsdistill.runtime.compiler.why_unavailable", lambda device: "no compiler")
    assert ComputeConfig().decided(CPU, 10, notices.append).compile is False
    assert notices == []
    assert ComputeConfig().decided(CPU, 10**12, notices.append).compile is False
    assert notices == ["running without torch.compile: no compiler"]


def test_no_auto_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdistill.runtime.device._multiplies_bf16", lambda device: True)
    config = ComputeConfig().decided(CPU, 10, print)
    expected = ComputeConfig(
        device="cpu", precision="bf16", compile=False, threads=torch.get_num_threads(), chunk=0, class_chunk=0
    )
    assert config == expected
    explicit = ComputeConfig(device="cpu", precision="fp32", compile=True, chunk=3, class_chunk=2, threads=1)
    assert explicit.decided(CPU, 10, print) == explicit
