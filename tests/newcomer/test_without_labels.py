"""What needs labels says so of data without them, in a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dsdistill

PICTURES = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> str:
    np.savez(tmp_path / "pictures.npz", images=PICTURES)
    return f"npz:{tmp_path / 'pictures.npz'}"


@pytest.mark.parametrize("method", ["dm", "dsa", "mtt", "datadam", "sre2l"])
def test_methods_that_go_by_classes_refuse_them_at_once(data: str, tmp_path: Path, method: str) -> None:
    with pytest.raises(dsdistill.UserError, match=r"pictures\.npz has no labels, and method") as caught:
        dsdistill.distill(tmp_path / "set.h5", dataset=data, method=method, ipc=5, iterations=2)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set.h5").exists()


def test_a_classifier_cannot_be_trained_on_them(data: str, tmp_path: Path) -> None:
    with pytest.raises(dsdistill.UserError, match="has no labels, and recipe 'ncfm' trains classifiers"):
        dsdistill.train_experts(tmp_path / "experts.h5", dataset=data, recipe="ncfm", network="convnet2-w4")
