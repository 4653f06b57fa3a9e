"""The command import."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.cli import FAST, Captured, pictures, refused, succeed
from tests.helpers.imports import LABELS, saved, unit


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return saved(tmp_path / "theirs.pt", (unit(), LABELS))


def test_an_imported_set_is_evaluated_like_any_other(tmp_path: Path, source: Path, capsys: Captured) -> None:
    output = tmp_path / "set.h5"
    out, err = succeed(capsys, "import", source, "-o", output, "--dataset", "digits", "--method", "theirs")
    assert "20 images, read as tensors, unit space" in out
    assert f"dsdistill evaluate {output}" in out
    assert "values lie between" in err
    out, _ = succeed(capsys, "info", output)
    assert "imported from  theirs.pt (tensors)" in out
    out, _ = succeed(capsys, "evaluate", output, *FAST)
    assert "distilled" in out
    assert "random" in out


def test_data_of_ones_own_are_named_again_for_the_evaluation(tmp_path: Path, capsys: Captured) -> None:
    data = f"folder:{pictures(tmp_path / 'pets', {'cat': 4, 'dog': 4})}"
    theirs = pictures(tmp_path / "theirs", {"dog": 1, "cat": 1})
    out, _ = succeed(capsys, "import", theirs, "-o", tmp_path / "set.h5", "--dataset", data)
    assert f"dsdistill evaluate {tmp_path / 'set.h5'} --dataset {data}" in out
    succeed(capsys, "evaluate", tmp_path / "set.h5", "--dataset", data, *FAST)


def test_bad_words(tmp_path: Path, source: Path, capsys: Captured) -> None:
    words = ("import", source, "-o", tmp_path / "set.h5")
    assert "--dataset NAME" in refused(capsys, *words)
    words = (*words, "--dataset", "digits")
    assert "unknown space 'lab'" in refused(capsys, *words, "--space", "lab")
    assert "unknown import format" in refused(capsys, *words, "--format", "mat")
    labels = saved(tmp_path / "labels.pt", LABELS + 1)
    assert "digits has 10 classes: 0 to 9" in refused(capsys, *words, "--labels", labels)
    assert not (tmp_path / "set.h5").exists()


def test_an_earlier_set_is_replaced_where_that_is_asked_for(
    tmp_path: Path, source: Path, capsys: Captured
) -> None:
    words = ("import", source, "-o", tmp_path / "set.h5", "--dataset", "digits")
    _, err = succeed(capsys, *words)
    assert err
    assert "--overwrite" in refused(capsys, *words)
    assert succeed(capsys, *words, "--overwrite", "-q")[1] == ""
    (tmp_path / "set.h5").write_text("a diary")
    assert "would not be replaced" in refused(capsys, *words, "--overwrite")
