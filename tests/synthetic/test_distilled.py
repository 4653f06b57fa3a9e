"""A distilled set in memory."""

from __future__ import annotations

import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.storage import make


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": torch.zeros(12, 3, 8)}, "float32 \\[N,C,H,W\\]"),
        ({"images": torch.zeros(12, 3, 8, 8).double()}, "got float64"),
        ({"images": torch.full((12, 3, 8, 8), torch.nan)}, "not finite"),
        ({"labels": torch.zeros(11, dtype=torch.int64)}, "one an image"),
        ({"labels": torch.arange(12)}, r"\[0, 3\)"),
        ({"labels": torch.tensor([0, 1] * 6)}, "class-major"),
        ({"classes": ()}, "0 classes"),
        ({"soft_labels": torch.zeros(12, 4)}, r"float32 \[12,3\]"),
        ({"soft_labels": torch.full((12, 3), torch.inf)}, "not finite"),
        ({"sample_weights": torch.ones(11)}, r"sample weights must be float32 \[12\]"),
        ({"sample_weights": torch.ones(12).double()}, "got float64"),
        ({"sample_weights": -torch.ones(12)}, "from 0, and not all 0"),
        ({"sample_weights": torch.zeros(12)}, "from 0, and not all 0"),
        ({"sample_weights": torch.full((12,), torch.nan)}, "must be finite"),
        ({"multi_formation": MultiFormation(factor=9)}, "smaller factor"),
        ({"multi_formation": MultiFormation(factor=0)}, "factor 0"),
    ],
)
def test_a_set_that_makes_no_sense_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**fields)
