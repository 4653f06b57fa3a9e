"""A newcomer without a GPU asks for CUDA graphs, and leaves it to the package; by public names only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dsdistill
from tests.newcomer.notices import Notices

SHORT: dict[str, Any] = {
    "dataset": "digits",
    "recipe": "mtt",
    "network": "convnet2-w4",
    "count": 1,
    "epochs": 1,
}


def test_graphs_are_refused_without_a_gpu_and_left_out_by_default(tmp_path: Path) -> None:
    experts, distilled = tmp_path / "experts.h5", tmp_path / "set.h5"
    with pytest.raises(
        dsdistill.UserError, match=r"^compute\.cuda_graphs=true needs a CUDA device"
    ) as caught:
        dsdistill.train_experts(experts, **SHORT, device="cpu", overrides=["compute.cuda_graphs=true"])
    assert "\n" not in str(caught.value)
    assert not experts.exists()
    said = Notices()
    dsdistill.train_experts(experts, **SHORT, device="cpu", callbacks=[said])
    dsdistill.distill(distilled, dataset="digits", ipc=1, network="convnet2-w4", iterations=1, device="cpu")
    told: dict[str, Any] = {"epochs": 1, "repeats": 1, "baselines": "", "device": "cpu"}
    with pytest.raises(dsdistill.UserError, match=r"^cuda_graphs=true needs a CUDA device"):
        dsdistill.evaluate(distilled, cuda_graphs=True, **told)
    dsdistill.evaluate(distilled, callbacks=[said], **told)
    assert not [sentence for sentence in said.sentences if "graph" in sentence]
