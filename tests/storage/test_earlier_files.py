"""Files that earlier versions wrote stay readable."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

import dsdistill
from dsdistill.data.preprocess import Standardise
from dsdistill.networks import build_network
from dsdistill.storage import set_file, set_results
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.storage.set_description import describe
from dsdistill.synthetic.distilled import DistilledSet
from tests.helpers.storage import same

GOLDEN = Path(__file__).parent.parent / "golden" / "version-1.h5"
EXPERTS = GOLDEN.with_name("experts-version-1.h5")
ARTIFACTS = Path(__file__).parent.parent.parent / "artifacts"
SETS = sorted(str(path.relative_to(ARTIFACTS)) for path in ARTIFACTS.rglob("*.h5"))


def golden_set() -> DistilledSet:
    """What `GOLDEN` holds; it was made by ``storage.write(GOLDEN, golden_set())`` and one `append_result`."""
    return DistilledSet(
        images=(torch.arange(4 * 3 * 4 * 4).reshape(4, 3, 4, 4) - 30) / 128,
        labels=torch.tensor([0, 0, 1, 1]),
        classes=("naïve", "second"),
        preprocess=Standardise(torch.tensor([0.25, 0.5, 0.75]), torch.tensor([0.5, 0.25, 0.125])),
        soft_labels=torch.tensor([[2.0, -1.0], [1.5, 0.0], [-0.5, 3.0], [0.25, 0.75]]),
        attributes={"method": "golden", "seed": 7, "learned_lr": 0.015625, "config": "iterations = 10\n"},
    )


def test_golden_file_of_version_1() -> None:
    """Version 1 stays readable for ever. Do not regenerate the file; a change of format is a new version."""
    assert same(set_file.read(GOLDEN), golden_set())
    assert set_file.load(GOLDEN).lr == 0.015625
    assert set_results.results(GOLDEN) == [{"protocol": "golden", "mean": 0.5, "values": [0.25, 0.75]}]


def test_there_are_earlier_sets() -> None:
    assert {"digits.h5", "fashion-mnist-ncfm-ipc10.h5"} <= set(SETS)
    assert any(name.startswith("fashion-mnist-quick/") for name in SETS)


@pytest.mark.parametrize("name", SETS)
def test_sets_of_earlier_versions_are_read(name: str) -> None:
    description = describe(ARTIFACTS / name)
    dataset = dsdistill.load(ARTIFACTS / name)
    assert len(dataset) == sum(description.decoded_counts) >= sum(description.counts) > 0
    assert dataset.stored.tolist() == list(description.counts)
    assert dataset.images.shape[1:] == description.shape
    assert dataset.images.isfinite().all()
    assert (dataset.soft_labels is not None) == description.has_soft_labels
    assert (dataset.classes, dataset.attributes) == (description.classes, description.attributes)
    assert {"method", "config", "dataset", "fingerprint", "ipc"} <= dataset.attributes.keys()


def test_experts_of_an_earlier_version_are_read() -> None:
    """Two networks of one epoch on digits; do not regenerate the file."""
    experts = ExpertFile.open(EXPERTS)
    metadata = experts.metadata
    assert (experts.count, experts.epochs, experts.digest) == (2, (0, 1), "adfe8d22032ec9fc")
    assert (metadata.network, metadata.dataset, metadata.seed) == ("convnet2-w4", "digits", 0)
    assert (metadata.channels, metadata.size, metadata.classes) == (1, 8, tuple("0123456789"))
    assert metadata.preprocess.kind == "standardise"
    assert 'recipe = "ncfm"' in metadata.config
    assert [record.loss for record in experts.training] == [2.3528337259158083, 2.3425940476086904]
    sums = [
        hashlib.sha256(experts.flat(expert, epoch).numpy().tobytes()).hexdigest()[:16]
        for expert in range(2)
        for epoch in (0, 1)
    ]
    assert sums == ["49d0fa19f5b76144", "4002c18ada8204b3", "2817c52785e0cf28", "97952c93c7103380"]
    build_network("convnet2-w4", 1, 8, 10).load_state_dict(experts.state(1, 1))
