"""What in a file are images, labels and the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.importing.content import find, number
from tests.helpers.imports import LABELS, imported, saved, unit

PATH = Path("a.pt")


@pytest.mark.parametrize(
    "content",
    [
        {"images": unit(), "labels": LABELS},
        {"image_syn": unit(), "label_syn": LABELS},
        {"data": unit(), "targets": LABELS},
        {"x_train": unit(), "y_train": LABELS, "notes": "mine"},
        (unit(), LABELS),
        [unit(), LABELS, 0.01],
        [unit().requires_grad_(), LABELS],
        {"images": unit().movedim(1, 3), "labels": LABELS},
        {"images": unit()[:, 0], "labels": LABELS},
        {"images": unit().unflatten(0, (10, 2)), "labels": LABELS.view(10, 2)},
    ],
)
def test_images_and_labels_are_found(content: Any) -> None:
    source = find(content, PATH)
    assert torch.equal(source.images, unit())
    assert source.labels is not None
    assert torch.equal(source.labels, LABELS)
    assert not source.images.requires_grad


def test_colour_is_told_from_width() -> None:
    images = torch.rand(4, 5, 7, 3)
    assert torch.equal(find(images, PATH).images, images.permute(0, 3, 1, 2))
    assert torch.equal(find(images.permute(0, 3, 1, 2), PATH).images, images.permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"weights": unit()}, "holds a dict of weights, and no images"),
        ({}, "a dict of nothing"),
        ([unit()], "a list of 1 values, and no images"),
        ("text", "holds 'text', and no images"),
        (torch.zeros(20, 2, 8, 8), r"shape \[20, 2, 8, 8\]"),
        (torch.zeros(0, 1, 8, 8), "shape"),
        (torch.zeros(20, 64), "shape"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.complex64), "not a dense tensor"),
        ({"images": unit().to_sparse()}, "not a dense tensor"),
        ({"images": unit(), "labels": "cats"}, "the labels are 'cats', not a dense tensor"),
        ({"images": unit(), "classes": [1, 2]}, "the classes are a list of 2 values, not a list of names"),
        ({"images": unit(), "lr": "fast"}, "the learning rate is 'fast'"),
        ({"images": torch.zeros(1).expand(1 << 40, 1, 8, 8)}, "GB of memory"),
    ],
)
def test_what_is_no_set_is_refused(content: Any, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        find(content, PATH)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -0.1, True, torch.zeros(2)])
def test_a_learning_rate_is_one_number_above_0(value: Any) -> None:
    assert number(torch.tensor([[0.5]]), PATH) == 0.5
    with pytest.raises(UserError, match=r"learning rate is .* not a number above 0"):
        number(value, PATH)


def test_labels_may_lie_in_a_file_of_their_own(tmp_path: Path) -> None:
    source = saved(tmp_path / "images.pth", unit())
    np.save(tmp_path / "labels.npy", LABELS.flip(0).numpy())
    for labels in (tmp_path / "labels.npy", saved(tmp_path / "l.pt", {"labels": LABELS.flip(0)})):
        distilled, _ = imported(source, labels=labels)
        assert torch.equal(distilled.images[:2], unit()[18:])
        source = source.rename(tmp_path / "again.pth")
    saved(tmp_path / "list.pt", LABELS.tolist())
    source = source.rename(tmp_path / "third.pth")
    assert torch.equal(imported(source, labels=tmp_path / "list.pt")[0].images, unit())
