"""Teachers that are loaded for the set that they label."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.labelling import committee as module
from dsdistill.labelling.committee import load_committee
from dsdistill.labelling.config import resolve
from dsdistill.storage import set_file
from dsdistill.teachers import load_teachers

CPU = torch.device("cpu")


def test_options_reach_the_committee(finished: Path, pool: Path) -> None:
    config = resolve(teachers=(f"{pool}#all@0", f"{pool}"), mean="probabilities", mode="train")
    found = load_committee(set_file.read(finished), config, CPU, "bf16")
    assert [each.epoch for each in found.teachers] == [0, 0, 1]
    assert (found.mean, found.mode, found.precision) == ("probabilities", "train", "bf16")
    assert found.weights == pytest.approx((1 / 3,) * 3)


def test_accuracies_weigh_answers(finished: Path, pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, shares = resolve(teachers=(f"{pool}#all",), weights="accuracy"), (0.6, 0.2, None)

    def known(*arguments: Any) -> list[Any]:
        pairs = zip(load_teachers(*arguments), shares, strict=False)
        return [
            dataclasses.replace(each, validation_accuracy=share, test_accuracy=0.9) for each, share in pairs
        ]

    monkeypatch.setattr(module, "load_teachers", known)
    assert load_committee(set_file.read(finished), config, CPU).weights == pytest.approx((0.75, 0.25))
    shares = (0.6, None)
    with pytest.raises(
        UserError, match=r"expert 1, epoch 1 of pool\.h5 has no accuracy on held-out"
    ) as caught:
        load_committee(set_file.read(finished), config, CPU)
    assert "--set test=validation" in str(caught.value)
    assert "--weights equal" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_set_says_of_which_data_teachers_have_to_be(finished: Path, pool: Path) -> None:
    distilled, config = set_file.read(finished), resolve(teachers=(str(pool),))
    assert load_committee(dataclasses.replace(distilled, attributes={}), config, CPU).teachers
    other = dataclasses.replace(distilled, attributes={"dataset": "pets", "fingerprint": "e" * 64})
    with pytest.raises(UserError, match=r"data set digits \(.*…\), and this run has pets \(eeeeeeee…\)"):
        load_committee(other, config, CPU)
    renamed = dataclasses.replace(distilled, classes=("1", "0", *distilled.classes[2:]))
    with pytest.raises(UserError, match=r"was trained with classes 0, 1, .* and this run has 1, 0, "):
        load_committee(renamed, config, CPU)
