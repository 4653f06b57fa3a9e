"""Which format a path is of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_type_hints

import pytest
import torch

from dsdistill.cli.importing import import_
from dsdistill.errors import UserError
from dsdistill.importing.registry import FORMATS, recognise
from dsdistill.importing.run import import_set
from tests.helpers.cli import pictures
from tests.helpers.imports import saved


def test_each_format_is_recognised_by_its_names(tmp_path: Path) -> None:
    blank = torch.zeros(2, 1, 8, 8)
    names = {
        "any.pt": "tensors",
        "any.npz": "tensors",
        "images_best.pt": "mtt",
        "images_zca_5000.pt": "mtt",
        "data.pt": "idc",
        "data_20000.pt": "idc",
        "res_DM_CIFAR10_ConvNet_10ipc.pt": "dc",
        "set.h5": "h5",
    }
    for name, expected in names.items():
        assert recognise(saved(tmp_path / expected / name, blank))[1].name == expected
    assert recognise(pictures(tmp_path / "pictures", {"a": 1, "b": 1}))[1].name == "pictures"
    saved(tmp_path / "dd" / "images.pt", blank)
    assert recognise(tmp_path / "dd")[1].name == "ddranking"
    for folder in ("mtt", "idc"):
        saved(tmp_path / f"{folder}2" / f"{'images_best' if folder == 'mtt' else 'data'}.pt", blank)
        assert recognise(tmp_path / f"{folder}2")[1].name == folder
    assert set(names.values()) | {"pictures", "ddranking"} == set(FORMATS)


def test_a_folder_of_one_file_stands_for_it(tmp_path: Path) -> None:
    file = saved(tmp_path / "run" / "mine.pt", torch.zeros(1))
    (tmp_path / "run" / "log.txt").touch()
    assert recognise(tmp_path / "run") == (file, FORMATS["tensors"])
    saved(tmp_path / "run" / "yours.npy", torch.zeros(1))
    with pytest.raises(UserError, match=r"several files of tensors \(mine.pt, yours.npy\); name one"):
        recognise(tmp_path / "run")


def test_what_is_of_no_format_or_of_several(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file or folder at"):
        recognise(tmp_path / "absent")
    with pytest.raises(UserError, match="no file or folder at"):
        recognise(tmp_path / ("x" * 300))
    (tmp_path / "a.mat").touch()
    (tmp_path / "empty").mkdir()
    for name in ("a.mat", "empty"):
        with pytest.raises(UserError, match=r"of no known format; known: h5 \(.*; tensors \(") as caught:
            recognise(tmp_path / name)
        assert "\n" not in str(caught.value)
    saved(pictures(tmp_path / "both", {"a": 1, "b": 1}) / "images_best.pt", torch.zeros(1))
    with pytest.raises(UserError, match="looks like mtt and pictures; choose one with --format"):
        recognise(tmp_path / "both")
    assert recognise(tmp_path / "both", "pictures")[1].name == "pictures"
    with pytest.raises(UserError, match="unknown import format"):
        recognise(tmp_path / "both", "picture")


def test_the_help_and_the_documentation_name_every_format() -> None:
    option = get_type_hints(import_, include_extras=True)["format"].__metadata__[0]
    assert sorted(re.findall(r"\w+", option.help.replace(" or ", " "))) == sorted(["auto", *FORMATS])
    (entry,) = re.findall(r"\bformat: (.*?);", import_set.__doc__ or "", re.DOTALL)
    assert sorted(re.findall(r'"(\w+)"', entry)) == sorted(FORMATS)
