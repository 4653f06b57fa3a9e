"""A set of INFER is small, and whoever has h5py decodes it in a few lines."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest
import torch

import dsdistill


@pytest.fixture
def file(two_teachers: str, tmp_path: Path) -> Path:
    dsdistill.distill(
        tmp_path / "infer.h5",
        dataset="digits",
        method="infer",
        ipc=3,
        network="convnet2-w6-batch,convnet2-w8-batch",
        experts=two_teachers,
        iterations=2,
        options={"storage": "float32"},
    )
    return tmp_path / "infer.h5"


def test_it_is_decoded_with_stock_h5py(file: Path) -> None:
    with h5py.File(file) as content:
        x, y, u = (torch.from_numpy(content[name][:]) for name in ("images", "labels", "compensators"))
    k = int((y == y[0]).sum())  # naturals of a class
    x, u = x.view(-1, 1, k, *x.shape[1:]), u.view(1, -1, k, *u.shape[1:])
    images = torch.cat([x, (x + u).clamp(0, 1)], 1).flatten(0, 2)

    ours = dsdistill.load(file, space="unit")
    assert torch.equal(images, ours.images)
    assert ours.labels.tolist() == [label for label in range(10) for _ in range(6)]


def test_it_stores_fewer_images_than_students_see(file: Path) -> None:
    dataset = dsdistill.load(file)
    assert (int(dataset.stored.sum()), len(dataset)) == (24, 60)
    assert dataset.ipc <= 3
