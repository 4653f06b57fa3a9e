"""What an expert file holds: what a stock reader sees, and parts that are missing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dsdistill.data.preprocess import ZCA
from dsdistill.networks import build_network
from dsdistill.networks.layout import Layout
from dsdistill.seeding import forked
from dsdistill.storage import expert_writer
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.storage.hdf5 import EXPERTS, LAYOUT, create
from tests.helpers.expert_files import (
    EPOCHS,
    FINGERPRINT,
    NETWORK,
    TASK,
    metadata,
    refused,
    states,
    training,
    written,
)


def test_stock_h5py_reads_it(shared: Path) -> None:
    with h5py.File(shared) as file:
        length = Layout.of(build_network(NETWORK, 1, 8, 3)).sizes[0]
        assert file["weights"].shape == (2, len(EPOCHS), length)
        assert file["weights"].chunks == (1, 1, length)
        assert file["weights"].dtype == "<f4"
        assert file["weights"].fletcher32
        assert file["weights"].compression is None
        assert file.attrs["format"].decode() == EXPERTS.name
        assert [name.decode() for name in file["classes"]] == list(TASK.classes)


def test_a_network_without_buffers_stores_none(tmp_path: Path) -> None:
    common = metadata("convnet2-w6", epochs=(0,))
    with forked(0, "test"):
        network = build_network("convnet2-w6", 1, 8, 3)
    snapshots = iter([common.layout.pack(network.state_dict())])
    expert_writer.write(tmp_path / "pool.h5", common, [(training(0), snapshots)], 1)
    with h5py.File(tmp_path / "pool.h5") as file:
        assert "buffers" not in file
    network.load_state_dict(ExpertFile.open(tmp_path / "pool.h5").state(0, 0))


def test_a_zca_comes_back(tmp_path: Path) -> None:
    whitening = ZCA.fit(torch.randint(0, 256, (90, 1, 8, 8), dtype=torch.uint8))
    found = ExpertFile.open(written(tmp_path / "pool.h5", metadata(preprocess=whitening)))
    assert torch.equal(found.metadata.preprocess.state()["matrix"], whitening.matrix)
    found.check(dataclasses.replace(TASK, preprocess=whitening), NETWORK, FINGERPRINT)
    refused(lambda: found.check(TASK, NETWORK, FINGERPRINT), "zca", "standardise", "--set data.zca=true")


@pytest.mark.parametrize("node", ["weights", "buffers", "epochs", "training/loss", "classes", "preprocess"])
def test_a_missing_part(pool: Path, node: str) -> None:
    with h5py.File(pool, "r+", libver=LAYOUT) as file:
        del file[node]
    refused(lambda: ExpertFile.open(pool), "damaged")


def test_weights_of_another_shape_or_never_written(pool: Path) -> None:
    with h5py.File(pool, "r+", libver=LAYOUT) as file:
        shape = file["weights"].shape
        del file["weights"]
        file.create_dataset("weights", shape, "<f4", chunks=(1, 1, shape[2]), fletcher32=True)
    refused(lambda: ExpertFile.open(pool), "/weights is incomplete")
    with h5py.File(pool, "r+", libver=LAYOUT) as file:
        del file["weights"]
        file.create_dataset("weights", data=np.zeros((1, *shape[1:]), "<f4"))
    refused(lambda: ExpertFile.open(pool), "/weights is float32")


def with_accuracies(path: Path, name: str = "test_accuracy") -> Path:
    """Write two experts with accuracies at five epochs, by default on test images."""
    records = (
        dataclasses.replace(training(e), **{name: tuple((e + n) / 8 for n in range(len(EPOCHS)))})
        for e in range(2)
    )
    common = metadata()
    experts = ((record, map(common.layout.pack, states(e))) for e, record in enumerate(records))
    expert_writer.write(path, common, experts, 2)
    return path


def test_accuracies_on_test_images_come_back(tmp_path: Path) -> None:
    found = ExpertFile.open(with_accuracies(tmp_path / "pool.h5"))
    assert (found.test_accuracy(0, 0), found.test_accuracy(1, 9), found.test_accuracy(1, 2)) == (
        0,
        5 / 8,
        2 / 8,
    )
    refused(lambda: found.test_accuracy(0, 1), "does not hold epoch 1")
    refused(lambda: found.test_accuracy(2, 0), "not expert 2")
    with h5py.File(found.path) as file:
        node = file["training/test_accuracy"]
        assert (node.dtype, node.shape, file.attrs["version"]) == (np.float64, (2, len(EPOCHS)), 3)


def test_a_file_without_them_is_as_before(shared: Path) -> None:
    with h5py.File(shared) as file:
        assert "test_accuracy" not in file["training"]
        assert file.attrs["version"] == 2
    refused(lambda: ExpertFile.open(shared).test_accuracy(0, 0), "--set test=stored")


def test_accuracies_on_images_held_out_come_back(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_accuracies(tmp_path / "pool.h5", "validation_accuracy")
    found = ExpertFile.open(path)
    assert found.holds_out
    assert (found.validation_accuracy(0, 0), found.validation_accuracy(1, 9)) == (0, 5 / 8)
    refused(lambda: found.validation_accuracy(0, 1), "does not hold epoch 1")
    refused(lambda: found.test_accuracy(0, 0), "--set test=stored")
    with h5py.File(path) as file:
        assert "test_accuracy" not in file["training"]
        assert file.attrs["version"] == EXPERTS.version == 5
    without = ExpertFile.open(shared)
    assert not without.holds_out
    refused(lambda: without.validation_accuracy(0, 0), "--set test=validation")
    scored = with_scores(tmp_path / "scored.h5")
    monkeypatch.setattr("dsdistill.storage.expert_file.EXPERTS", dataclasses.replace(EXPERTS, version=4))
    assert ExpertFile.open(scored).has_el2n
    refused(lambda: ExpertFile.open(path), "newer dsdistill (format version 5, this one reads 4)")


def test_an_earlier_version_refuses_a_file_with_them_alone(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_accuracies(tmp_path / "pool.h5")
    monkeypatch.setattr("dsdistill.storage.expert_file.EXPERTS", dataclasses.replace(EXPERTS, version=2))
    assert ExpertFile.open(shared).count == 2
    refused(lambda: ExpertFile.open(path), "newer dsdistill (format version 3, this one reads 2)")


@pytest.mark.parametrize("name", ["test_accuracy", "validation_accuracy"])
@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((2, 4)), "not one float64 for each epoch"),
        (np.zeros((2, len(EPOCHS)), np.float32), "not one float64 for each epoch"),
        (np.full((2, len(EPOCHS)), 1.5), "no fractions"),
        (np.full((2, len(EPOCHS)), np.nan), "no fractions"),
        (np.zeros((1, len(EPOCHS))), "damaged"),
    ],
)
def test_accuracies_that_make_no_sense(tmp_path: Path, name: str, values: np.ndarray, words: str) -> None:
    path = with_accuracies(tmp_path / "pool.h5", name)
    with h5py.File(path, "r+", libver=LAYOUT) as file:
        del file[f"training/{name}"]
        create(file["training"], name, values)
    refused(lambda: ExpertFile.open(path), words)


SCORES = [torch.tensor([0.0, 0.5, 2**0.5]), torch.tensor([1.0, 0.25, 0.125])]


def with_scores(path: Path) -> Path:
    """Write two experts with the scores of three training images."""
    common = metadata()
    experts = ((training(e), map(common.layout.pack, states(e))) for e in range(2))
    expert_writer.write(path, common, experts, 2, SCORES)
    return path


def test_scores_of_training_images_come_back(tmp_path: Path, shared: Path) -> None:
    found = ExpertFile.open(with_scores(tmp_path / "pool.h5"))
    assert found.has_el2n
    assert all(torch.equal(found.el2n(expert), SCORES[expert]) for expert in range(2))
    refused(lambda: found.el2n(2), "not expert 2")
    with h5py.File(found.path) as file:
        node = file["training/el2n"]
        assert (node.dtype, node.shape, file.attrs["version"]) == (np.float32, (2, 3), 4)
    without = ExpertFile.open(shared)
    assert not without.has_el2n
    refused(lambda: without.el2n(0), "does not hold how hard", "--recipe el2n")


def test_an_earlier_version_refuses_a_file_with_scores_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested, scored = with_accuracies(tmp_path / "tested.h5"), with_scores(tmp_path / "scored.h5")
    monkeypatch.setattr("dsdistill.storage.expert_file.EXPERTS", dataclasses.replace(EXPERTS, version=3))
    assert ExpertFile.open(tested).count == 2
    refused(lambda: ExpertFile.open(scored), "newer dsdistill (format version 4, this one reads 3)")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((2, 3)), "not one float32 for each image"),
        (np.zeros(2, np.float32), "not one float32 for each image"),
        (np.zeros((1, 3), np.float32), "not one float32 for each image"),
        (np.full((2, 3), 1.5, np.float32), "no scores"),
        (np.full((2, 3), np.nan, np.float32), "no scores"),
        (np.zeros((2, 3), np.float32), "checksum"),
    ],
)
def test_scores_that_make_no_sense(tmp_path: Path, values: np.ndarray, words: str) -> None:
    path = with_scores(tmp_path / "pool.h5")
    with h5py.File(path, "r+", libver=LAYOUT) as file:
        del file["training/el2n"]
        create(file["training"], "el2n", values)
    refused(lambda: ExpertFile.open(path), words)
