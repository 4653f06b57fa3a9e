"""The command ``label``, and what ``info`` and ``export`` say of labelled sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdistill.storage import set_file
from dsdistill.storage.set_description import describe
from tests.helpers.cli import Captured, refused, succeed


@pytest.fixture
def views(finished: Path, pool: Path, tmp_path: Path, capsys: Captured) -> Path:
    output = tmp_path / "views.h5"
    words = ("--views", 4, "--batch-size", 5, "--mixing", "mixup", "--encoding", "top", "--top", 3)
    succeed(capsys, "label", finished, "--teacher", f"{pool}#all", "-o", output, *words)
    return output


def test_labels_and_their_bytes_are_printed(
    finished: Path, pool: Path, tmp_path: Path, capsys: Captured
) -> None:
    out, err = succeed(capsys, "label", finished, "--teacher", f"{pool}@1", "-o", tmp_path / "labelled.h5")
    assert "logits of 10 images, by convnet2-w6" in out
    assert "expert 0, epoch 1 of pool.h5" in out
    about = describe(tmp_path / "labelled.h5")
    assert f"{about.label_bytes} B, {about.label_bytes // 10}" in out
    assert "for each training image" in out
    assert "labelling 10 images by" in err
    assert "labelling 10/10" in err


def test_teachers_are_not_weighed_by_test_images(
    finished: Path, pool: Path, tmp_path: Path, capsys: Captured
) -> None:
    words = ("--teacher", f"{pool}#all", "-o", tmp_path / "labelled.h5", "--weights")
    sentence = refused(capsys, "label", finished, *words, "accuracy")
    assert "expert 0, epoch 1 of pool.h5 has no accuracy on held-out training images" in sentence
    assert "dsdistill experts --set test=validation, or choose --weights equal" in sentence
    succeed(capsys, "label", finished, *words, "equal")


def test_views_are_described(views: Path, capsys: Captured) -> None:
    out, _ = succeed(capsys, "info", views)
    assert "labels             hard, 40 views (4 epochs, mixup, top)" in out
    assert "(of them views " in out
    assert "teacher epochs     1, 1" in out
    assert "protocol           fkd" in out


def test_options_reach_the_call(finished: Path, pool: Path, tmp_path: Path, capsys: Captured) -> None:
    output = tmp_path / "out.h5"
    words = [
        "--views",
        2,
        "--crop-scale",
        "0.5,0.9",
        "--flip",
        "--seed",
        3,
        "--keep",
        "0.4",
        "--batch-size",
        2,
    ]
    words += ["--mode", "train", "--mean", "probabilities", "--beta", 0.3, "-q"]
    _, err = succeed(capsys, "label", finished, "--teacher", pool, "-o", output, *words)
    assert err == ""
    read = set_file.read(output)
    assert read.views is not None
    assert len(read.views) == 4
    assert read.views.flips.any()
    areas = read.views.crops[:, 2] * read.views.crops[:, 3]
    assert 20 < int(areas.min()) < 60
    told = str(read.attributes["labelling"])
    for option in ('"seed": 3', '"keep": 0.4', '"mode": "train"', '"mean": "probabilities"', '"beta": 0.3'):
        assert option in told


def test_a_dry_run_says_what_it_takes(finished: Path, pool: Path, tmp_path: Path, capsys: Captured) -> None:
    output = tmp_path / "out.h5"
    out, _ = succeed(capsys, "label", finished, "--teacher", pool, "-o", output, "--views", 1000, "--dry-run")
    assert "for 10,000 views" in out
    assert "disk" in out
    assert not output.exists()


def test_bad_input(finished: Path, pool: Path, tmp_path: Path, capsys: Captured) -> None:
    output = tmp_path / "out.h5"
    for words, sentence in (
        (["--teacher", f"{pool}@3"], "does not hold epoch 3; it holds 0 to 1"),
        (["--teacher", "gone.h5"], "no file at gone.h5"),
        (
            ["--teacher", pool, "--crop-scale", "half"],
            "--crop-scale takes two shares of the area, such as 0.25,1",
        ),
        (["--teacher", pool, "--keep", "0.5"], "keep is an option of views; ask for some"),
        (
            ["--teacher", pool, "--views", "2", "--encoding", "top", "--top", "99"],
            "top is 99, and there are 10",
        ),
        (["--teacher", pool, "-q", "-v"], "--quiet and --verbose exclude each other"),
        ([], "teacher"),
    ):
        assert sentence in refused(capsys, "label", finished, "-o", output, *words)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("target", ["set.pt", "pictures", "set.parquet", "set.tar"])
def test_exports_say_that_they_leave_views_out(
    views: Path, tmp_path: Path, target: str, capsys: Captured
) -> None:
    if target == "set.parquet":
        pytest.importorskip("pyarrow")
    _, err = succeed(capsys, "export", views, tmp_path / target)
    assert "the 40 views (4 epochs, mixup, top) are left out; the .h5 holds them" in " ".join(err.split())


def test_views_belong_to_their_pixels(views: Path, tmp_path: Path, capsys: Captured) -> None:
    sentence = refused(capsys, "export", views, tmp_path / "small.h5")
    assert "uint8 changes the pixels" in sentence
    assert "store the set without its views first, then label what is stored" in sentence
    assert not (tmp_path / "small.h5").exists()
    succeed(capsys, "export", views, tmp_path / "same.h5", "--dtype", "float32")
    assert describe(tmp_path / "same.h5").labels == describe(views).labels
    sentence = refused(capsys, "import", views, "-o", tmp_path / "imported.h5", "--dataset", "digits")
    assert "holds views that a teacher has labelled" in sentence
