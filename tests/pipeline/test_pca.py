"""PCA: the easiest images of each class side by side, and students who see one of them at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import dsdistill
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.errors import UserError
from dsdistill.storage import set_file
from dsdistill.storage.expert_file import ExpertFile
from tests.helpers.experts import PLAIN

NETWORK, IPC = "convnet2-w8-batch", 3


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> ExpertFile:
    """Return two networks that recorded two epochs of digits."""
    path = tmp_path_factory.mktemp("pca") / "el2n.h5"
    return dsdistill.train_experts(
        path, dataset="digits", recipe="el2n", network=NETWORK, count=2, epochs=2, overrides=PLAIN
    )


def distilled(output: Path, experts: Path, *overrides: str) -> Path:
    told = ["compute.compile=false", "storage=float32", *overrides]
    options = {"dataset": "digits", "ipc": IPC, "network": NETWORK, "experts": experts}
    return dsdistill.distill(output, method="pca", overrides=told, **options).path  # type: ignore[arg-type]


def expected(experts: ExpertFile, label: int, count: int, hardest: bool = False) -> Tensor:
    """Return images of a class by rising or falling mean score, [count, C, H, W]."""
    _, real = catalog.load(DataConfig(name="digits"), "train")
    scores = [sum(pair) for pair in zip(*(experts.el2n(each).tolist() for each in range(2)), strict=True)]
    rows = [row for row, other in enumerate(real.labels.tolist()) if other == label]
    rows = sorted(rows, key=lambda row: scores[row], reverse=hardest)[:count]
    return real.unit(torch.tensor(rows))


def same_images(found: Tensor, wanted: Tensor) -> bool:
    """Whether two batches hold the same images in any order."""
    distances = (found[:, None] - wanted[None]).abs().flatten(2).amax(2)
    return len(found) == len(wanted) and bool(
        (distances.amin(0) < 1e-5).all() and (distances.amin(1) < 1e-5).all()
    )


@pytest.mark.parametrize("pick", ["easiest", "hardest"])
def test_cells_hold_the_easiest_images_of_each_class_whole(
    tmp_path: Path, experts: ExpertFile, pick: str
) -> None:
    images = set_file.read(distilled(tmp_path / "set.h5", experts.path, f"patches.pick={pick}")).images
    cells = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(10, 4 * IPC, 1, 4, 4)
    for label in range(10):
        chosen = expected(experts, label, 4 * IPC, hardest=pick == "hardest")
        shrunk = F.interpolate(chosen, 4, mode="bilinear", antialias=True)
        assert same_images(cells[label], shrunk), label


def test_uncombined_they_are_as_large_as_they_were(tmp_path: Path, experts: ExpertFile) -> None:
    images = set_file.read(distilled(tmp_path / "set.h5", experts.path, "patches.grid=1")).images
    for label in range(10):
        assert same_images(images[label * IPC : (label + 1) * IPC], expected(experts, label, IPC)), label


def test_students_learn_from_single_cells(tmp_path: Path, experts: ExpertFile) -> None:
    made = distilled(tmp_path / "set.h5", experts.path)
    report = dsdistill.evaluate(made, epochs=60, repeats=1, networks="convnet2-w16", baselines="")
    assert (report.protocol, report.regime) == ("pca", "HL")
    assert report.rows[0].mean > 40


def test_bad_input_is_one_sentence_before_the_run(tmp_path: Path, experts: ExpertFile) -> None:
    plain = tmp_path / "plain.h5"
    options = {"network": NETWORK, "epochs": 1, "count": 1}
    dsdistill.train_experts(plain, dataset="digits", recipe="mtt", overrides=PLAIN, **options)  # type: ignore[arg-type]
    for file, change, words in (
        (experts.path, "ipc=40", "fewer than the 160"),
        (experts.path, "patches.grid=3", "do not divide"),
        (plain, "patches.grid=2", "--recipe el2n"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            distilled(tmp_path / "set.h5", file, change)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "set.h5").exists()
