"""What is said of files of sets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import torch

from dsdistill.storage import set_file, set_results
from dsdistill.storage.set_description import describe
from tests.helpers.labels import with_views
from tests.helpers.storage import make


def test_describe(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, make(soft_labels=make().images[:, :, 0, 0]), "float16")
    set_results.append_result(path, {"mean": 0.5})
    found = describe(path)
    assert (found.counts, found.shape, found.dtype) == ((4, 4, 4), (3, 8, 8), "float16")
    assert found.has_soft_labels
    assert found.attributes == {"method": "dm", "seed": 3, "seconds": 1.5}
    assert found.results == [{"mean": 0.5}]
    assert 0 < found.image_bytes <= 12 * 3 * 8 * 8 * 2 + 64
    assert found.label_bytes > 12 * 3 * 2  # random logits barely compress
    assert (
        found.image_bytes + found.label_bytes + found.preprocess_bytes
        < found.file_bytes
        == path.stat().st_size
    )


def test_bytes_of_labels_are_those_of_all_their_nodes(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, make())
    hard = describe(path)
    assert (hard.labels, hard.view_bytes) == ("hard", 0)

    labelled = dataclasses.replace(with_views(views=30), sample_weights=torch.rand(12))
    set_file.write(path, labelled)
    with h5py.File(path) as file:
        sizes = {name: file[name].id.get_storage_size() for name in ("labels", "sample_weights")}
        nodes = [*file["views"].values(), *file["views/answers"].values()]
        views = sum(node.id.get_storage_size() for node in nodes if isinstance(node, h5py.Dataset))
    found = describe(path)
    assert found.view_bytes == views > 360 * 3 * 2
    assert found.label_bytes == views + sum(sizes.values())
    assert found.image_bytes == hard.image_bytes
    assert found.labels == "hard, weights of images, 360 views (30 epochs, cutmix, float16)"
