"""The file of experts: what is written is read, a snapshot at a time; damage and misuse get one sentence."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import pytest
import torch
from torch import Tensor

from dsdistill.data.preprocess import ZCA, Standardise
from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.networks.layout import Layout
from dsdistill.seeding import forked
from dsdistill.storage import expert_writer, set_file
from dsdistill.storage.expert_file import ExpertFile, ExpertMetadata, TrainingRecord, _differing
from dsdistill.storage.hdf5 import EXPERTS, LAYOUT, set_attributes
from tests.helpers import cli as cli_helpers

NETWORK = "convnet2-w6-batch"
TASK = Task("toys", ("ball", "doll", "kite"), 1, 8, Standardise.of((0.5,), (0.25,)), True)
FINGERPRINT = "f" * 64
EPOCHS = (0, 2, 3, 4, 9)


def states(expert: int) -> list[dict[str, Tensor]]:
    found = []
    for epoch in EPOCHS:
        with forked(expert, "test", epoch):
            network = build_network(NETWORK, 1, 8, 3)
            network(torch.randn(4, 1, 8, 8))  # moves the running statistics
        found.append(network.state_dict())
    return found


def facts(network: str = NETWORK, **others: Any) -> ExpertMetadata:
    made = ExpertMetadata(
        network=network,
        layout=Layout.of(build_network(network, 1, 8, 3)),
        dataset=TASK.name,
        fingerprint=FINGERPRINT,
        classes=TASK.classes,
        channels=TASK.channels,
        size=TASK.size,
        preprocess=TASK.preprocess,
        epochs=EPOCHS,
        seed=7,
        config="lr = 0.1\n",
    )
    return dataclasses.replace(made, **others)


def training(expert: int) -> TrainingRecord:
    return TrainingRecord(0.5 + expert, 0.25, 3.0, "a machine", "2020-01-01T00:00:00+00:00")


def written(path: Path, told: ExpertMetadata | None = None, count: int = 2) -> Path:
    told = told or facts()
    pack = told.layout.pack
    experts = ((training(e), (pack(state) for state in states(e))) for e in range(count))
    expert_writer.write(path, told, experts, count)
    return path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("buffer") / "pool.h5")


@pytest.fixture
def pool(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(shared, tmp_path))


def refused(call: Any, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# Reading back -----------------------------------------------------------------------------------------------


def test_every_state_comes_back_whole(shared: Path) -> None:
    found = ExpertFile.open(shared)
    assert (found.count, found.epochs) == (2, EPOCHS)
    assert found.training == (training(0), training(1))
    for expert in range(2):
        for epoch, state in zip(EPOCHS, states(expert), strict=True):
            back = found.state(expert, epoch)
            assert back.keys() == state.keys()
            for name, value in state.items():
                assert back[name].dtype == value.dtype
                assert torch.equal(back[name], value)
            build_network(NETWORK, 1, 8, 3).load_state_dict(back)


def test_flat_weights_are_in_the_order_of_the_parameters(shared: Path) -> None:
    network = build_network(NETWORK, 1, 8, 3)
    network.load_state_dict(states(1)[2])
    expected = torch.nn.utils.parameters_to_vector(network.parameters())
    flat = ExpertFile.open(shared).flat(1, 3)
    assert flat.dtype == torch.float32
    assert torch.equal(flat, expected)


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
    told = facts("convnet2-w6", epochs=(0,))
    with forked(0, "test"):
        network = build_network("convnet2-w6", 1, 8, 3)
    snapshots = iter([told.layout.pack(network.state_dict())])
    expert_writer.write(tmp_path / "pool.h5", told, [(training(0), snapshots)], 1)
    with h5py.File(tmp_path / "pool.h5") as file:
        assert "buffers" not in file
    network.load_state_dict(ExpertFile.open(tmp_path / "pool.h5").state(0, 0))


def test_a_zca_comes_back(tmp_path: Path) -> None:
    whitening = ZCA.fit(torch.randint(0, 256, (90, 1, 8, 8), dtype=torch.uint8))
    found = ExpertFile.open(written(tmp_path / "pool.h5", facts(preprocess=whitening)))
    assert torch.equal(found.metadata.preprocess.state()["matrix"], whitening.matrix)
    found.check(dataclasses.replace(TASK, preprocess=whitening), NETWORK, FINGERPRINT)
    refused(lambda: found.check(TASK, NETWORK, FINGERPRINT), "zca", "standardise", "--set data.zca=true")


def test_a_closed_file_opens_again(shared: Path) -> None:
    found = ExpertFile.open(shared)
    before = found.flat(0, 0)
    found.close()
    found.close()
    assert torch.equal(found.flat(0, 0), before)


def test_what_is_not_there_is_named(shared: Path) -> None:
    found = ExpertFile.open(shared)
    refused(lambda: found.flat(0, 1), "does not hold epoch 1", "0, 2 to 4, 9")
    refused(lambda: found.flat(2, 0), "experts 0 to 1", "expert 2")


# Serving only what it was trained for -----------------------------------------------------------------------


def test_the_task_it_was_trained_for_passes(shared: Path) -> None:
    ExpertFile.open(shared).check(TASK, NETWORK, FINGERPRINT)


def test_another_name_of_the_same_network_passes(tmp_path: Path) -> None:
    told = facts("convnet2-w6", epochs=(0,))
    flats = (torch.zeros(told.layout.sizes[0]), torch.zeros(0))
    expert_writer.write(tmp_path / "pool.h5", told, [(training(0), [flats])], 1)
    found = ExpertFile.open(tmp_path / "pool.h5")
    found.check(TASK, "convnet-w6", FINGERPRINT)  # as deep as convnet2 at 8 pixels
    other = "convnet-w6-maxpool"  # which has weights of the same shapes
    refused(lambda: found.check(TASK, other, FINGERPRINT), "convnet2-w6", other)


@pytest.mark.parametrize(
    ("changes", "network", "fingerprint", "words"),
    [
        ({"classes": ("doll", "ball", "kite")}, NETWORK, FINGERPRINT, ("ball, doll", "doll, ball")),
        ({"size": 16}, NETWORK, FINGERPRINT, ("1x8x8", "1x16x16")),
        ({"name": "others"}, NETWORK, "a" * 64, ("toys (ffffffff…)", "others (aaaaaaaa…)")),
        ({"preprocess": Standardise.of((0.4,), (0.25,))}, NETWORK, FINGERPRINT, ("other constants",)),
        ({}, "convnet2-w8-batch", FINGERPRINT, (NETWORK, "convnet2-w8-batch")),
        ({}, "convnet2-w6", FINGERPRINT, (NETWORK, "convnet2-w6")),
    ],
)
def test_another_task_is_refused(
    shared: Path, changes: dict[str, Any], network: str, fingerprint: str, words: tuple[str, ...]
) -> None:
    task = dataclasses.replace(TASK, **changes)
    refused(lambda: ExpertFile.open(shared).check(task, network, fingerprint), *words)


def test_the_first_other_class_of_many_is_named() -> None:
    names = tuple(f"class {index}" for index in range(100))
    swapped = (*names[:98], names[99], names[98])
    assert _differing(names, swapped) == ("class 98", "'class 98'", "'class 99'")
    assert _differing(names, names[:99])[0] == "classes"


# Damage -----------------------------------------------------------------------------------------------------


def test_no_file_and_foreign_files(tmp_path: Path, finished: Path) -> None:
    refused(lambda: ExpertFile.open(tmp_path / "none.h5"), "no file at")
    (tmp_path / "text.h5").write_text("no weights")
    refused(lambda: ExpertFile.open(tmp_path / "text.h5"), "not an HDF5 file")
    refused(lambda: ExpertFile.open(finished), "holds no experts")
    refused(lambda: ExpertFile.open(tmp_path), "cannot read")


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_a_truncated_file(pool: Path, share: float) -> None:
    data = pool.read_bytes()
    pool.write_bytes(data[: int(share * len(data))])
    refused(lambda: ExpertFile.open(pool), "damaged")


def test_a_newer_version(pool: Path) -> None:
    with h5py.File(pool, "r+", libver=LAYOUT) as file:
        del file.attrs["version"]
        set_attributes(file, version=9)
    refused(lambda: ExpertFile.open(pool), "newer dsdistill", "9")


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
        file.create_dataset("weights", (1, *shape[1:]), "<f4")
    refused(lambda: ExpertFile.open(pool), "/weights is float32")


def test_one_snapshot_is_read_without_the_others(pool: Path) -> None:
    with h5py.File(pool) as file:
        at = file["weights"].id.get_chunk_info_by_coord((1, 2, 0)).byte_offset
    data = bytearray(pool.read_bytes())
    data[at + 100] ^= 1
    pool.write_bytes(data)
    found = ExpertFile.open(pool)
    assert torch.isfinite(found.flat(1, 2)).all()
    refused(lambda: found.flat(1, 3), "damaged at expert 1, epoch 3")


# Writing ----------------------------------------------------------------------------------------------------


def test_a_failure_leaves_the_old_file_and_no_other(pool: Path) -> None:
    before = pool.read_bytes()

    def fails() -> Iterator[Any]:
        yield training(0), map(facts().layout.pack, states(0))
        raise UserError("a part is damaged")

    with pytest.raises(UserError, match="a part is damaged"):
        expert_writer.write(pool, facts(), fails(), 2)
    for experts in ([], [(training(0), [])]):
        with pytest.raises(ValueError):  # noqa: PT011 - a defect of the caller
            expert_writer.write(pool, facts(), experts, 1)
    assert pool.read_bytes() == before
    assert list(pool.parent.iterdir()) == [pool]


def test_a_full_disk_is_found_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    refused(lambda: written(tmp_path / "pool.h5"), "GB are free")
    assert not list(tmp_path.iterdir())


def test_a_distilled_set_is_not_one(shared: Path) -> None:
    refused(lambda: set_file.read(shared), "holds experts, not a distilled set")


# Description ------------------------------------------------------------------------------------------------


def test_info_describes_experts(capsys: cli_helpers.Captured, tmp_path: Path) -> None:
    told = facts(config='recipe = "my/ncfm.toml"\n')
    path = tmp_path / "pool.h5"
    trained = [
        dataclasses.replace(training(e), accuracy=0.5 + e / 8, machine=f"machine {e % 2}") for e in range(3)
    ]
    pack = told.layout.pack
    experts = ((each, (pack(state) for state in states(e))) for e, each in enumerate(trained))
    expert_writer.write(path, told, experts, 3)
    out, err = cli_helpers.succeed(capsys, "info", path)
    assert not err
    said = dict(line.split(maxsplit=1) for line in out.splitlines())
    parameters = sum(p.numel() for p in build_network(NETWORK, 1, 8, 3).parameters())
    assert said["file"].startswith(f"{path}, structure verified, ")
    assert said["experts"].startswith(f"3 of {NETWORK} ({parameters} parameters, ")
    assert said["kept"] == "epochs  0, 2 to 4, 9"
    assert said["accuracy"] == "50.00 to 75.00 % on training images"
    assert said["images"] == "1x8x8"
    assert said["classes"] == "ball, doll, kite"
    assert (said["dataset"], said["preprocess"], said["recipe"]) == ("toys", "standardise", "ncfm")
    assert (said["seed"], said["seconds"]) == ("7", "0 min 09 s")
    assert (said["machine"], said["fingerprint"]) == ("machine 0; machine 1", FINGERPRINT)


def test_info_refuses_bad_experts_with_their_own_sentence(capsys: cli_helpers.Captured, pool: Path) -> None:
    with h5py.File(pool, "r+") as file:
        file.attrs["version"] = 99
    assert "newer dsdistill (format version 99" in cli_helpers.refused(capsys, "info", pool)
    pool.write_bytes(pool.read_bytes()[:2000])
    assert "dsdistill: " in cli_helpers.refused(capsys, "info", pool)
    with h5py.File(pool, "w", libver=LAYOUT) as file:
        set_attributes(file, format=EXPERTS.name, version=1)
    assert f"{pool} is damaged: " in cli_helpers.refused(capsys, "info", pool)
