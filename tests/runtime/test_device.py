"""Device, precision, memory and threads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.runtime import device as hardware
from dsdistill.runtime.device import (
    autocast,
    available_memory,
    full_float32,
    peak_memory,
    reset_peak_memory,
    resolve_device,
    resolve_precision,
    threads,
    training_precision,
)

CPU = torch.device("cpu")


# Device -----------------------------------------------------------------------------------------------------


def test_auto_is_the_cpu_without_cuda() -> None:
    assert resolve_device() == resolve_device("auto") == resolve_device("cpu") == CPU


def test_auto_is_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device() == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="device 'cuda:2' asked for, but torch finds 2 CUDA devices"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "unknown device 'tpu'; use auto, cpu, cuda or cuda:0"),
        ("meta", "device 'meta' is not supported"),
        ("cuda", "torch finds 0 CUDA devices; use --device cpu"),
    ],
)
def test_devices_that_do_not_exist_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_device(name)


def test_processes_are_not_sent_to_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu:0").type == "cpu"
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="say --device cpu"):
        resolve_device("cpu:0")


# Precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_follows_the_hardware(
    monkeypatch: pytest.MonkeyPatch, native: bool, precision: str
) -> None:
    monkeypatch.setattr(hardware, "_multiplies_bf16", lambda device: native)
    assert resolve_precision("auto", CPU) == precision
    assert [resolve_precision(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    with pytest.raises(UserError, match="unknown precision 'fp8'; use auto, fp32 or bf16"):
        resolve_precision("fp8", CPU)


def test_autocast_multiplies_in_bf16_and_leaves_fp32_alone() -> None:
    weight, x = torch.ones(3, 3), torch.ones(2, 3)
    with autocast(CPU, "fp32"):
        assert torch.nn.functional.linear(x, weight).dtype == torch.float32
    with autocast(CPU, "bf16"):
        assert torch.nn.functional.linear(x, weight).dtype == torch.bfloat16


@pytest.mark.parametrize("allowed", [True, False])
def test_full_float32_restores_the_switch_of_tf32(allowed: bool) -> None:
    before = hardware._set_tf32(allowed)
    try:
        with full_float32():
            assert torch.backends.cudnn.allow_tf32 is False
        assert torch.backends.cudnn.allow_tf32 is allowed
    finally:
        hardware._set_tf32(before)


def test_students_and_experts_train_in_fp32_on_a_gpu_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdistill.runtime.device._multiplies_bf16", lambda device: True)
    cuda = torch.device("cuda")
    assert [training_precision("auto", device) for device in (CPU, cuda)] == ["bf16", "fp32"]
    assert [training_precision("bf16", device) for device in (CPU, cuda)] == ["bf16", "bf16"]
    assert resolve_precision("auto", cuda) == "bf16"


# Memory -----------------------------------------------------------------------------------------------------


def test_available_memory_is_known_on_linux() -> None:
    available = available_memory(CPU)
    if available is None:
        pytest.skip("this system does not tell")
    assert available > 2**20
    table = Path("/proc/meminfo")
    if table.exists():  # caches, which count as available, go on changing
        kilobytes = next(
            int(line.split()[1]) for line in table.read_text().splitlines() if "MemAvailable" in line
        )
        assert available == pytest.approx(1024 * kilobytes, rel=0.2)


def test_the_peak_of_a_process_never_falls() -> None:
    before = peak_memory(CPU)
    reset_peak_memory(CPU)
    assert peak_memory(CPU) >= before > 2**20


# Threads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1])
def test_threads_are_restored(count: int) -> None:
    def fail() -> None:
        with threads(count):
            assert torch.get_num_threads() == (count or before)
            raise RuntimeError("stop")

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert torch.get_num_threads() == before
