"""The command export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsdistill.storage.set_description import describe
from tests.helpers.cli import Captured, refused, succeed
from tests.helpers.exports import of_cifar


def test_the_export_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_cifar(tmp_path / "set.h5")
    out, err = succeed(capsys, "export", tmp_path / "set.h5", "--to", "ddranking", "-o", tmp_path / "out")
    assert out == f"wrote {tmp_path / 'out'}\n"
    assert err == ""
    assert (tmp_path / "out" / "images.pt").exists()
    _, err = succeed(
        capsys, "export", tmp_path / "set.h5", tmp_path / "idc", "--to", "ddranking", "--protocol", "idc"
    )
    assert "CutMix" in err
    succeed(capsys, "export", tmp_path / "set.h5", "-o", tmp_path / "set.pt")
    assert "images" in torch.load(tmp_path / "set.pt", weights_only=True)
    succeed(capsys, "export", tmp_path / "set.h5", "--to", "png", "-o", tmp_path / "png")
    assert (tmp_path / "png" / "labels.csv").exists()
    _, err = succeed(capsys, "export", tmp_path / "set.h5", tmp_path / "small.h5", "--dtype", "float16")
    assert "float16: the largest error" in err
    assert describe(tmp_path / "small.h5").dtype == "float16"

    words = "export", tmp_path / "set.h5"
    assert "did you mean 'ddranking'" in refused(capsys, *words, tmp_path / "no", "--to", "dd-ranking")
    assert "name one output" in refused(capsys, *words)
    assert "name one output" in refused(capsys, *words, tmp_path / "no", "-o", tmp_path / "no")
    assert "not an empty folder" in refused(capsys, *words, "--to", "ddranking", "-o", tmp_path / "out")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("to", ["png", "ddranking", "webdataset", "hf"])
def test_an_earlier_export_is_replaced_where_that_is_asked_for(
    tmp_path: Path, capsys: Captured, to: str
) -> None:
    if to == "hf":
        pytest.importorskip("pyarrow")
    of_cifar(tmp_path / "set.h5")
    out = tmp_path / "out"
    words = "export", tmp_path / "set.h5", "-o", out, "--to", to
    succeed(capsys, *words, "-q")
    (out / "left.txt").touch()
    assert "not an empty folder" in refused(capsys, *words)
    assert (out / "left.txt").exists()
    assert succeed(capsys, *words, "--overwrite", "-q") == (f"wrote {out}\n", "")
    assert not (out / "left.txt").exists()
    assert {each.name for each in tmp_path.iterdir()} == {"set.h5", "out"}


def test_only_exports_are_replaced_and_failures_leave_them(tmp_path: Path, capsys: Captured) -> None:
    of_cifar(tmp_path / "set.h5")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").touch()
    words = "export", tmp_path / "set.h5", "--overwrite", "-o"
    assert "not an empty folder" in refused(capsys, *words, tmp_path / "mine", "--to", "png")
    succeed(capsys, *words, tmp_path / "png", "--to", "png")
    assert "no file at" in refused(
        capsys, "export", tmp_path / "none.h5", "--overwrite", "-o", tmp_path / "png", "--to", "png"
    )
    assert (tmp_path / "png" / "labels.csv").exists()
    assert "is the set itself" in refused(capsys, *words, tmp_path / "set.h5")
    for _ in range(2):
        succeed(capsys, *words, tmp_path / "small.h5")


def test_export_writes_a_folder_or_a_file(capsys: Captured, made: Path) -> None:
    pngs, tensors = made.parent / "pngs", made.parent / "set.pt"
    succeed(capsys, "export", made, pngs)
    assert len(list(pngs.rglob("*.png"))) == 10
    succeed(capsys, "export", made, tensors, "--space", "unit")
    assert tensors.exists()
