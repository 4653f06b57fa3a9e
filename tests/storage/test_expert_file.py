"""Expert files: every state is read back, and only for the task it was trained for."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.storage import expert_writer
from dsdistill.storage.expert_file import ExpertFile, _differing
from tests.helpers.expert_files import EPOCHS, FINGERPRINT, NETWORK, TASK, metadata, refused, states, training


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


def test_a_closed_file_opens_again(shared: Path) -> None:
    found = ExpertFile.open(shared)
    before = found.flat(0, 0)
    found.close()
    found.close()
    assert torch.equal(found.flat(0, 0), before)


def test_experts_that_were_replaced_since_are_refused(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "pool.h5"
    path.write_bytes(shared.read_bytes())
    found = ExpertFile.open(path)
    pack = metadata().layout.pack
    other = dataclasses.replace(training(0), loss=9.0)
    expert_writer.write(path, metadata(), [(each, map(pack, states(0))) for each in (other, other)], 2)
    with pytest.raises(UserError, match="other experts lie there by now"):
        found.flat(0, 0)


def test_what_is_not_there_is_named(shared: Path) -> None:
    found = ExpertFile.open(shared)
    refused(lambda: found.flat(0, 1), "does not hold epoch 1", "0, 2 to 4, 9")
    refused(lambda: found.flat(2, 0), "experts 0 to 1", "expert 2")


def test_one_snapshot_is_read_without_the_others(pool: Path) -> None:
    with h5py.File(pool) as file:
        at = file["weights"].id.get_chunk_info_by_coord((1, 2, 0)).byte_offset
    data = bytearray(pool.read_bytes())
    data[at + 100] ^= 1
    pool.write_bytes(data)
    found = ExpertFile.open(pool)
    assert torch.isfinite(found.flat(1, 2)).all()
    refused(lambda: found.flat(1, 3), "damaged at expert 1, epoch 3")


def test_the_task_it_was_trained_for_passes(shared: Path) -> None:
    ExpertFile.open(shared).check(TASK, NETWORK, FINGERPRINT)


def test_another_name_of_the_same_network_passes(tmp_path: Path) -> None:
    common = metadata("convnet2-w6", epochs=(0,))
    flats = (torch.zeros(common.layout.sizes[0]), torch.zeros(0))
    expert_writer.write(tmp_path / "pool.h5", common, [(training(0), [flats])], 1)
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


def test_features_are_checked_by_the_images_alone(shared: Path) -> None:
    pixels = torch.arange(6 * 64, dtype=torch.int64).to(torch.uint8).view(6, 1, 8, 8)
    real = RealDataset("toys", "train", pixels, torch.arange(6) % 2, ("up", "down"))
    with_labels = dataclasses.replace(ExpertFile.open(shared).metadata, fingerprint=real.fingerprint)
    for images in (real, real.without_labels()):
        task = dataclasses.replace(TASK, classes=images.classes)
        found = dataclasses.replace(ExpertFile.open(shared), metadata=with_labels)
        found.check_features(task, images)
        words = ("the images of toys (ffffffff…)", f"toys ({images.fingerprint[:8]}…)")
        refused(partial(ExpertFile.open(shared).check_features, task, images), *words)
        for changes, word in (
            ({"size": 16}, "1x16x16"),
            ({"preprocess": Standardise.of((0.4,), (0.25,))}, "other constants"),
        ):
            refused(partial(found.check_features, dataclasses.replace(task, **changes), images), word)


def test_the_first_other_class_of_many_is_named() -> None:
    names = tuple(f"class {index}" for index in range(100))
    swapped = (*names[:98], names[99], names[98])
    assert _differing(names, swapped) == ("class 98", "'class 98'", "'class 99'")
    assert _differing(names, names[:99])[0] == "classes"
