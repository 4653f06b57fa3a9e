"""The commands info, show, methods, datasets, networks and protocols."""

from __future__ import annotations

import tomllib
from pathlib import Path

import torch
from PIL import Image

from dsdistill.storage import set_file
from tests.helpers.cli import Captured, refused, succeed


def test_info_and_show_describe_a_set(capsys: Captured, made: Path) -> None:
    out, _ = succeed(capsys, "info", made)
    assert "verified" in out
    assert "10 of 1x8x8 float32" in out
    out, _ = succeed(capsys, "show", made)
    assert str(made.with_suffix(".png")) in out
    with Image.open(made.with_suffix(".png")) as picture:
        assert picture.width > 8


def test_info_prints_the_configuration_that_replays_a_set(capsys: Captured, made: Path) -> None:
    out, _ = succeed(capsys, "info", made, "--config")
    again, config = made.parent / "again.h5", made.parent / "again.toml"
    config.write_text(out)
    succeed(capsys, "distill", "--config", config, "-o", again)
    assert torch.equal(set_file.read(again).images, set_file.read(made).images)


def test_methods_and_datasets_are_listed(capsys: Captured) -> None:
    out, _ = succeed(capsys, "methods")
    assert "Zhao & Bilen" in out
    out, _ = succeed(capsys, "methods", "mtt")
    assert tomllib.loads(out)["title"].startswith("MTT")
    out, _ = succeed(capsys, "methods", "ncfm-minmax")
    assert tomllib.loads(out)["title"].startswith("NCFM with its minmax")  # what follows is a comment
    assert "# It begins from ncfm:" in out
    assert "# batch_real = 1024\n" in out
    assert "did you mean 'mtt'" in refused(capsys, "methods", "mttt")
    out, _ = succeed(capsys, "datasets")
    assert "cifar10 " in out
    assert "folder:PATH" in out


def test_networks_protocols_and_the_version_are_told(capsys: Captured) -> None:
    out, _ = succeed(capsys, "networks")
    assert "convnet4-w64-batch" in out
    out, _ = succeed(capsys, "protocols")
    assert "DSA" in out
    out, _ = succeed(capsys, "--version")
    assert out.startswith("dsdistill 0.")
