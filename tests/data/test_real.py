"""`RealDataset`: its images, its classes and its fingerprint."""

from __future__ import annotations

import pytest
import torch

from dsdistill.data.real import RealDataset
from tests.helpers.data import pixels


def small(labels: tuple[int, ...] = (1, 0, 1, 2), classes: tuple[str, ...] = ("a", "b", "c")) -> RealDataset:
    images = torch.from_numpy(pixels(len(labels), 3, 4, 4))
    return RealDataset("small", "train", images, torch.tensor(labels), classes)


def test_dataset_indexes_by_class_and_scales_to_unit() -> None:
    data = small()
    assert data.counts.tolist() == [1, 2, 1]
    assert [data.indices_of(k).tolist() for k in range(3)] == [[1], [0, 2], [3]]
    unit = data.unit(data.indices_of(1))
    assert torch.equal(unit, data.images[[0, 2]].float() / 255)
    assert torch.equal(data.unit(slice(1, 3)), data.images[1:3].float() / 255)


def test_fingerprint_depends_on_pixels_labels_class_order_and_nothing_else() -> None:
    data = small()
    laid_out_otherwise = data.images.contiguous(memory_format=torch.channels_last)
    assert (
        RealDataset("x", "test", laid_out_otherwise, data.labels, data.classes).fingerprint
        == data.fingerprint
    )
    changed = data.images.clone()
    changed[3, 2, 3, 3] ^= 1
    others = [
        RealDataset("small", "train", changed, data.labels, data.classes),
        RealDataset("small", "train", data.images.view(4, 3, 2, 8), data.labels, data.classes),
        small(labels=(1, 0, 2, 1)),
        small(classes=("a", "c", "b")),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_dataset_refuses_other_types() -> None:
    with pytest.raises(ValueError, match="uint8"):
        RealDataset("x", "train", torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(ValueError, match="labels"):
        RealDataset("x", "train", torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]), ("a", "b"))
