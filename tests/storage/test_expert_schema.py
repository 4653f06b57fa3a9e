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
from dsdistill.storage.hdf5 import EXPERTS, LAYOUT
from tests.helpers.expert_files import (
    EPOCHS,
    FINGERPRINT,
    NETWORK,
    TASK,
    metadata,
    refused,
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
