"""What processes agree on before a distillation."""

from __future__ import annotations

import pytest
import torch

from dsdistill.distillation.agreement import check_devices
from dsdistill.errors import UserError
from dsdistill.runtime import launch
from dsdistill.runtime.ranks import ALONE, Ranks


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "local_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    words = r"4 processes on a machine with 2 CUDA devices: .*--nproc-per-node 2\), or pass --device cpu"
    with pytest.raises(UserError, match=words):
        check_devices(Ranks(0, 4), cuda)
    check_devices(Ranks(0, 4), cpu)
    check_devices(ALONE, cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    check_devices(Ranks(0, 4), cuda)
