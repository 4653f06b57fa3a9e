"""A newcomer weighs two teachers by images that they were not trained on; by public names only."""

from __future__ import annotations

from pathlib import Path

import pytest

import dsdistill


def test_teachers_are_weighed_by_images_that_they_held_out(tmp_path: Path) -> None:
    names = {"one": "validation", "two": "validation", "three": "stored"}
    shares = []
    for name, test in names.items():
        teacher = dsdistill.train_experts(
            tmp_path / f"{name}.h5",
            dataset="digits",
            recipe="mtt",
            network="mlp",
            count=1,
            epochs=1 if name == "one" else 3,
            options={"test": test, "keep": "ends"},
        )
        if test == "validation":
            shares.append(f"{teacher.validation_accuracy(0, teacher.epochs[-1]):.4f}")
    dsdistill.distill(tmp_path / "set.h5", dataset="digits", ipc=1, network="mlp", iterations=2, device="cpu")
    files = [str(tmp_path / f"{name}.h5") for name in names]
    dsdistill.label(tmp_path / "set.h5", tmp_path / "out.h5", teachers=files[:2], weights="accuracy")
    about = dsdistill.load(tmp_path / "out.h5").attributes
    assert about["teacher_validation_accuracies"] == ", ".join(shares)
    with pytest.raises(dsdistill.UserError, match="no accuracy on held-out training images"):
        dsdistill.label(tmp_path / "set.h5", tmp_path / "not.h5", teachers=files, weights="accuracy")
