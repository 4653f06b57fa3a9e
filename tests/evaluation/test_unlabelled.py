"""Sets without labels, where labels are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dsdistill
from dsdistill.storage import set_file
from tests.storage.test_targets import with_targets


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    set_file.write(tmp_path / "set.h5", with_targets())
    return tmp_path / "set.h5"


def test_sets_without_labels_are_no_classifiers_training_data(unlabelled: Path, tmp_path: Path) -> None:
    sentences: dict[str, Any] = {
        "the set has no labels, and students of this protocol are classifiers": lambda: dsdistill.evaluate(
            unlabelled, dataset="digits", protocol="dm"
        ),
        "has no labels, and teachers answer with the classes": lambda: dsdistill.label(
            unlabelled, tmp_path / "labelled.h5", teachers="pool.h5"
        ),
        "has no labels, and DD-Ranking trains classifiers": lambda: dsdistill.export_set(
            unlabelled, tmp_path / "ranking", to="ddranking"
        ),
    }
    for sentence, call in sentences.items():
        with pytest.raises(dsdistill.UserError, match=sentence):
            call()
