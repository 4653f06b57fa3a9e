"""Files that several tests of evaluation read."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from dsdistill.evaluation import evaluate
from dsdistill.evaluation.selector import Selector, SelectorTraining
from tests.helpers.evaluation import write_digits


@pytest.fixture
def digits_file(tmp_path: Path) -> Path:
    """Two random digits of each class, as a distilled set."""
    return write_digits(tmp_path / "digits.h5", network="convnet3-w8")


@pytest.fixture
def brief_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the networks that choose real images for a few steps, where it does not matter which they are."""
    training = SelectorTraining(epochs=1, least_steps=4, networks=2)
    monkeypatch.setattr(evaluate, "Selector", partial(Selector, training=training))
