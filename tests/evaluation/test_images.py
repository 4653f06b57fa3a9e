"""Real images of a training set that are brought to network space batch by batch."""

from __future__ import annotations

import pytest
import torch

from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset
from dsdistill.evaluation import images as images_module
from dsdistill.evaluation.baselines import training_sets
from dsdistill.evaluation.images import RealImages, in_network_space

REAL = RealDataset(
    "real", "train", torch.arange(9 * 12).view(9, 3, 2, 2).byte(), torch.arange(9) % 3, ("a", "b", "c")
)
PREPROCESS = Standardise.of((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


def test_many_images_are_those_that_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    few = in_network_space(REAL, None, PREPROCESS)
    monkeypatch.setattr(images_module, "RESIDENT_BYTES", 10)
    many = in_network_space(REAL, None, PREPROCESS).to(torch.device("cpu"))
    assert isinstance(few, torch.Tensor)
    assert isinstance(many, RealImages)
    assert (many.shape, len(many), many.device) == (few.shape, 9, few.device)
    rows = torch.tensor([8, 0, 3, 3])
    assert torch.equal(many[rows], few[rows])
    assert torch.equal(in_network_space(REAL, rows, PREPROCESS)[rows[:1] * 0], few[rows[:1]])


def test_the_full_training_set_is_not_kept_if_it_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "RESIDENT_BYTES", 10)
    source = training_sets("full", REAL, REAL.counts, None, PREPROCESS, 0)
    assert isinstance(source(0).images, RealImages)
    assert source(0) is source(1)
    assert source(0).labels.tolist() == REAL.labels.tolist()
    drawn = training_sets("random", REAL, torch.tensor([1, 1, 1]), None, PREPROCESS, 0)(0)
    assert isinstance(drawn.images, torch.Tensor)
