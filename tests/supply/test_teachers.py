"""Teachers by the names that a run gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

import dsdistill
from dsdistill.config.options import with_absolute_paths
from dsdistill.errors import UserError
from dsdistill.supply.teachers import TeachersConfig

OWN = """
from torch import nn


def Net(channels, size, classes):
    body = nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
    head = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, classes)
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)
"""


@pytest.mark.parametrize("path", ["a.h5,b.h5#1@2", " a.h5 , b.h5#1@2,", ",a.h5,,b.h5#1@2"])
def test_names_are_read_with_spaces_and_stray_commas(path: str) -> None:
    first, second = TeachersConfig(path=path).references()
    assert (first.source, first.expert) == ("a.h5", None)
    assert (second.source, second.expert, second.epoch) == ("b.h5", 1, 2)


def test_published_weights_are_no_path_after_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    supply = {"path": "a.h5, torchvision:resnet18@IMAGENET1K_V1,"}
    options = {"data": {"name": "digits"}, "engine": {"supply": supply}}
    found = with_absolute_paths(options)["engine"]["supply"]["path"]
    assert found == f"{tmp_path}/a.h5,torchvision:resnet18@IMAGENET1K_V1"


def test_networks_of_ones_own_are_teachers(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(OWN)
    own, files = f"{tmp_path}/net.py:Net", (tmp_path / "own.h5", tmp_path / "known.h5")
    for name, file in zip((own, "convnet2-w4-batch"), files, strict=True):
        dsdistill.train_experts(
            file, dataset="digits", recipe="teacher", network=name, epochs=1, device="cpu"
        )
    options = {"dataset": "digits", "method": "cv-dd", "ipc": 1, "iterations": 1, "device": "cpu"}
    priors = {"engine": {"committee": {"priors": [60.0, 50.0]}}}
    names, paths = f"{own},convnet2-w4-batch", ",".join(map(str, files))
    dsdistill.distill(tmp_path / "set.h5", network=names, experts=paths, options=priors, **options)  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match=r"this run names mlp, net.py:Net: pass --network net.py:Net,convnet2"
    ):
        dsdistill.distill(tmp_path / "other.h5", network=f"{own},mlp", experts=paths, **options)  # type: ignore[arg-type]
