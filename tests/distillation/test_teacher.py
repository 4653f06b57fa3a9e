"""Soft labels that a trained network gives, one for each image that students train on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import dsdistill
from dsdistill.data.preprocess import Standardise
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.seeding import generator
from dsdistill.storage import set_file
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.storage.set_description import describe
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.conftest import THREADS
from tests.helpers.supply import NETWORK


def decoded_set(rows: int) -> DistilledSet:
    """Return two images of each of two classes, decoded into four each, with some rows of soft labels."""
    draw = generator(0, "test")
    return DistilledSet(
        images=torch.rand(4, 1, 8, 8, generator=draw),
        labels=torch.tensor([0, 0, 1, 1]),
        classes=("a", "b"),
        preprocess=Standardise.of((0.5,), (0.5,)),
        soft_labels=torch.randn(rows, 2, generator=draw),
        multi_formation=MultiFormation(factor=2),
    )


def test_decoded_images_may_have_labels_of_their_own(tmp_path: Path) -> None:
    made = decoded_set(16)
    set_file.write(tmp_path / "set.h5", made)
    dataset = set_file.load(tmp_path / "set.h5", labels="soft")
    assert made.soft_labels is not None
    assert len(dataset) == 16
    assert all(torch.equal(torch.as_tensor(dataset[i][1]), made.soft_labels[i]) for i in range(16))


def test_stored_images_have_none_where_decoded_ones_do() -> None:
    assert DistilledDataset(decoded_set(16), decode=False).soft_labels is None
    with pytest.raises(UserError, match="those of decoded images; load the set with decode=True"):
        DistilledDataset(decoded_set(16), labels="soft", decode=False)


def test_any_other_number_is_refused() -> None:
    with pytest.raises(UserError, match=r"float32 \[4,2\] or \[16,2\], got float32 \[5, 2\]"):
        decoded_set(5)


@pytest.mark.parametrize(("factor", "budget"), [(1, ""), (2, ""), (1, "3000B")])
def test_a_teacher_labels_what_students_see(tmp_path: Path, pool: Path, factor: int, budget: str) -> None:
    """Within a budget, they see what fits beside the labels."""
    told = ["labels=teacher", f"multi_formation.factor={factor}", f"engine.supply.path={pool}", THREADS]
    told += ["compute.compile=false", "engine.discrepancy.frequencies=16", "engine.batch_real=8"]
    made = dsdistill.distill(
        tmp_path / "set.h5",
        dataset="digits",
        method="ncfm",
        ipc=4,
        network=NETWORK,
        iterations=2,
        device="cpu",
        options={"storage": {"budget": budget}} if budget else {},
        overrides=told,
    )
    dataset = dsdistill.load(made.path)
    sizes = describe(made.path)
    assert not budget or 2400 < sizes.image_bytes + sizes.label_bytes <= 3000
    network = build_network(NETWORK, 1, 8, 10)
    network.load_state_dict(ExpertFile.open(pool).state(0, 1))
    with torch.no_grad():
        logits = network.eval()(dataset.images)
    right = logits.argmax(1) == dataset.labels
    assert 0 < right.sum() < len(right)  # both cases are seen
    expected = torch.where(right[:, None], logits, F.one_hot(dataset.labels, 10).float())
    assert dataset.soft_labels is not None
    torch.testing.assert_close(dataset.soft_labels, expected)


def test_a_method_without_trained_networks_has_no_teacher(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this method has none: set labels=hard"):
        dsdistill.distill(
            tmp_path / "set.h5",
            dataset="digits",
            method="dm",
            ipc=1,
            device="cpu",
            overrides=["labels=teacher"],
        )
    assert not list(tmp_path.iterdir())
