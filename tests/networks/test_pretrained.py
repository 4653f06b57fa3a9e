"""Published weights: from the cache alone, checked, and for some of their classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torchvision import models

from dsdistill.config.unlabelled import UNLABELLED
from dsdistill.data.preprocess import ZCA, Preprocess, Standardise
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.networks import Network
from dsdistill.networks.pretrained import pretrained
from dsdistill.teachers import Committee, TeacherReference, load_feature_teacher, load_teachers
from tests.helpers.published import MODEL, WEIGHTS, empty_cache, stored_model

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_cache(tmp_path, monkeypatch)


@pytest.fixture
def stored(cache: Path, monkeypatch: pytest.MonkeyPatch) -> models.ShuffleNetV2:
    return stored_model(cache, monkeypatch)


def task(classes: tuple[str, ...], mean: tuple[float, ...] = IMAGENET[0], channels: int = 3) -> Task:
    preprocess = Standardise.of(mean[:channels], IMAGENET[1][:channels])
    return Task("birds", classes, channels, 64, preprocess, mirror=True)


def test_weights_are_not_fetched_unasked(cache: Path) -> None:
    with pytest.raises(UserError, match=r"not on this machine .*pass --download"):
        pretrained(MODEL, "DEFAULT", 64)


def test_unknown_weights_name_the_known(cache: Path) -> None:
    with pytest.raises(UserError, match="IMAGENET1K_V1"):
        pretrained(MODEL, "IMAGENET1K_V9", 64)


def test_the_network_is_the_librarys(stored: models.ShuffleNetV2) -> None:
    loaded = pretrained(MODEL, "DEFAULT", 64)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.network.eval()(images), stored(images))
    assert loaded.classes[1] == "goldfish"


def test_a_damaged_file_is_refused(stored: models.ShuffleNetV2, cache: Path) -> None:
    (file,) = cache.iterdir()
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        pretrained(MODEL, "DEFAULT", 64)


def test_a_teacher_answers_for_the_classes_of_a_subset(stored: models.ShuffleNetV2) -> None:
    names = WEIGHTS.meta["categories"]
    reference = TeacherReference.parse(f"{MODEL}@DEFAULT")
    (teacher,) = load_teachers([reference], task((names[7], names[3])), "", torch.device("cpu"))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = stored(images)[:, [7, 3]]
    torch.testing.assert_close(Committee([teacher]).logits(images), expected)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (task(("goldfish", "griffin")), "'griffin' of birds is none"),
        (task(("goldfish",), mean=(0.5, 0.5, 0.5)), "birds is preprocessed otherwise"),
        (task(("goldfish",), channels=1), "takes images of 3 channels, and birds has 1"),
    ],
)
def test_a_teacher_of_another_task_is_refused(
    stored: models.ShuffleNetV2, wrong: Task, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        load_teachers([TeacherReference.parse(f"{MODEL}@DEFAULT")], wrong, "", torch.device("cpu"))


def load_features(preprocess: Preprocess | None = None, channels: int = 3) -> Network:
    """Load the features of the model for pictures without labels."""
    known = task(UNLABELLED, channels=channels)
    known = dataclasses.replace(known, preprocess=preprocess or known.preprocess)
    pixels = torch.zeros(2, channels, 64, 64, dtype=torch.uint8)
    real = RealDataset("birds", "train", pixels, torch.zeros(2, dtype=torch.int64), UNLABELLED)
    reference = TeacherReference.parse(f"{MODEL}@DEFAULT")
    return load_feature_teacher(reference, known, real, torch.device("cpu")).network


def test_features_are_taken_of_images_whose_classes_are_others_or_none(stored: models.ShuffleNetV2) -> None:
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = load_features().embed(images)
        torch.testing.assert_close(stored.fc(found), stored(images))
    zca = ZCA(torch.zeros(3 * 64**2), torch.eye(3 * 64**2))
    for options, remedy in (
        ({"preprocess": Standardise.of((0.5,) * 3, (0.5,) * 3)}, "name a network trained on these images"),
        ({"preprocess": zca}, "pass --set data.zca=false"),
        ({"channels": 1}, "takes images of 3 channels"),
    ):
        with pytest.raises(UserError, match=remedy):
            load_features(**options)  # type: ignore[arg-type]
