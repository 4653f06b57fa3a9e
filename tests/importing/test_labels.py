"""Labels of sources: hard, one-hot, probabilities, logits, by position; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import one_hot

from dsdistill.importing.labels import Labels, labels_of
from dsdistill.importing.source import Source
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.imports import LABELS, digits, imported, refused, saved, unit

LOGITS = torch.randn(20, 10, generator=torch.Generator().manual_seed(3)) + 6 * one_hot(LABELS, 10)


def found(**fields: Any) -> Labels:
    return labels_of(Source(**({"images": unit()} | fields)), digits())


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.to(torch.int32),
        LABELS.double(),
        LABELS[:, None],
        one_hot(LABELS, 10),
        one_hot(LABELS, 10).float(),
    ],
)
def test_hard_labels_of_any_kind(labels: torch.Tensor) -> None:
    result = found(labels=labels)
    assert torch.equal(result.hard, LABELS)
    assert result.hard.dtype == torch.int64
    assert result.soft is None


def test_logits_are_kept_and_hard_labels_are_those_of_the_position() -> None:
    result = found(labels=LOGITS)
    assert result.soft is not None
    assert torch.equal(result.soft, LOGITS)
    assert torch.equal(result.hard, LABELS)
    assert "stored as logits" in result.notices[0]
    assert "class by class, 2 of each" in result.notices[1]


def test_where_positions_do_not_fit_the_largest_logit_decides() -> None:
    order = torch.randperm(20, generator=torch.Generator().manual_seed(4))
    result = found(soft_labels=LOGITS[order])
    assert torch.equal(result.hard, LABELS)
    assert result.soft is not None
    assert torch.equal(result.soft.argmax(1), LABELS)
    assert torch.equal(order[result.order] // 2, LABELS)
    assert "the largest soft label" in result.notices[-1]
    uneven = found(images=unit(19), soft_labels=LOGITS[:19])
    assert torch.equal(uneven.hard, LABELS[:19])


def test_probabilities_become_logarithms_unless_they_are_known_to_be_logits() -> None:
    probabilities = LOGITS.softmax(1)
    result = found(soft_labels=probabilities)
    assert result.soft is not None
    torch.testing.assert_close(result.soft.softmax(1), probabilities)
    assert "their logarithms" in result.notices[0]
    kept = found(soft_labels=probabilities, are_logits=True).soft
    assert kept is not None
    assert torch.equal(kept, probabilities)
    zero = found(soft_labels=torch.cat([torch.eye(10), torch.full((10, 10), 0.1)])).soft
    assert zero is not None
    assert zero.isfinite().all()


def test_names_of_classes_reorder_labels_and_logits() -> None:
    names = tuple(reversed(digits().classes))
    result = found(labels=LABELS, soft_labels=LOGITS, classes=names)
    assert torch.equal(result.hard, LABELS)
    assert torch.equal(result.order[:2], torch.tensor([18, 19]))
    assert result.soft is not None
    assert torch.equal(result.soft, LOGITS[result.order].flip(1))


def test_logits_of_decoded_images_need_images_in_order() -> None:
    logits, formation = torch.randn(80, 10), MultiFormation(factor=2)
    kept = found(labels=LABELS, soft_labels=logits, multi_formation=formation).soft
    assert kept is not None
    assert torch.equal(kept, logits)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ((unit(), LABELS + 1), r"labels go up to 10 and down to 1, and digits has 10 classes: 0 to 9"),
        ((unit(), LABELS - 1), "down to -1"),
        ((unit(), LABELS + 0.5), "not whole numbers"),
        ((unit(), torch.full((20,), float("nan"))), "not whole numbers"),
        ((unit(), LABELS > 3), "not whole numbers"),
        ((unit(), LABELS[:19]), r"shape \[19\], and there are 20 images"),
        (
            (unit(), torch.zeros(20, 9)),
            r"soft labels have shape \[20, 9\], and 20 images of digits take \[20,10\]",
        ),
        ((unit(), torch.zeros(19, 10)), "19 soft labels for 20 images"),
        ((unit(), torch.full((20, 10), float("inf"))), "not finite"),
        (unit(19), "no labels for the 19 images, and digits has 10 classes; pass --labels"),
        (
            {"images": unit(), "labels": LABELS % 5, "soft_labels": LOGITS, "classes": list("01234")},
            "names 5 classes, and each of its soft labels has 10 values; name the 10 classes of digits",
        ),
        ({"images": unit(), "labels": LABELS, "classes": ["cat"] * 10}, "'cat' is none of digits's"),
    ],
)
def test_bad_labels_are_refused(tmp_path: Path, content: Any, match: str) -> None:
    refused(saved(tmp_path / "a.pt", content), match)


def test_without_labels_images_are_taken_class_by_class(tmp_path: Path) -> None:
    distilled, summary = imported(saved(tmp_path / "a.pt", unit(30)))
    assert distilled.labels.tolist() == [label for label in range(10) for _ in range(3)]
    assert "3 of each" in summary.notices[-1]


def test_classes_without_images_are_told() -> None:
    assert found(labels=LABELS).notices == ()
    assert found(labels=LABELS.clamp(2, 8)).notices == ("no images of classes 0, 1, 9",)
    many = replace(digits(), classes=tuple(f"class {number}" for number in range(500)))
    (sentence,) = labels_of(Source(images=unit(), labels=LABELS), many).notices
    assert sentence.startswith("no images of classes class 10, class 11, ")
    assert sentence.endswith(", … (490)")
