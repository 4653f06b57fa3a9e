"""Tables of Hugging Face's `datasets`: their columns."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.data import in_memory, pixels, refuses

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.usefixtures("data_home")

ARRAYS = [pixels(8, 8, 3, seed=seed) for seed in range(8)]
PICTURES = [Image.fromarray(array) for array in ARRAYS]
LABELS = [0, 1] * 4
EXPECTED = torch.from_numpy(np.stack(ARRAYS)).permute(0, 3, 1, 2)
KINDS = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}


def encoded(picture: Image.Image, form: str = "PNG") -> bytes:
    buffer = BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def table(columns: dict[str, Any], kinds: dict[str, Any] | None = None) -> Any:
    return datasets.Dataset.from_dict(columns, features=kinds and datasets.Features(kinds))


def both(one: Any) -> Any:
    return datasets.DatasetDict({"train": one, "test": one.select([0, 1])})


def test_pictures_and_names_of_classes_are_read_from_their_columns() -> None:
    whole = both(table({"image": PICTURES, "label": LABELS}, KINDS))
    for given in (whole, whole.with_format("torch"), whole.with_format("numpy")):
        task, train, _ = in_memory(given)
        assert torch.equal(train.images, EXPECTED)
        assert (train.labels.tolist(), task.classes) == (LABELS, ("cat", "dog"))
    assert in_memory(whole, "test")[1].labels.tolist() == [0, 1]
    assert in_memory(whole)[1].name == "memory:DatasetDict"
    assert in_memory(whole["train"])[1].name == "memory:Dataset"
    assert len(in_memory(whole["train"])[1]) == 6  # a part is held out


@pytest.mark.parametrize(
    ("columns", "kinds"),
    [
        ({"img": PICTURES, "fine_label": LABELS, "coarse_label": LABELS[::-1]}, {"img": datasets.Image()}),
        ({"image": [encoded(picture) for picture in PICTURES], "labels": LABELS}, None),
        ({"image": [{"bytes": encoded(p), "path": "a.png"} for p in PICTURES], "cls": LABELS}, None),
        ({"image": [array.tolist() for array in ARRAYS], "target": LABELS}, "uint8"),
        ({"photo": PICTURES, "label": LABELS}, {"photo": datasets.Image()}),
    ],
)
def test_columns_are_found_by_kind_or_by_name(columns: dict[str, Any], kinds: Any) -> None:
    if kinds == "uint8":
        kinds = {"image": datasets.Array3D((8, 8, 3), "uint8"), "target": datasets.Value("int64")}
    elif kinds:
        kinds = {name: datasets.Value("int64") for name in columns} | kinds
    _, train, _ = in_memory(both(table(columns, kinds)))
    assert torch.equal(train.images, EXPECTED)
    assert train.labels.tolist() == LABELS


def test_labels_that_are_names_are_numbered() -> None:
    names = ["dog", "cat"] * 4
    train = table(
        {"image": PICTURES, "label": names}, {"image": datasets.Image(), "label": datasets.Value("string")}
    )
    task, data, _ = in_memory({"train": train, "test": train.select([0])}, "test")
    assert (task.classes, data.labels.tolist()) == (("cat", "dog"), [1])


@pytest.mark.parametrize(
    ("columns", "kinds", "message"),
    [
        ({"text": ["a"] * 8, "label": LABELS}, None, "the columns text, label, and none .* hold the images"),
        (
            {"image": PICTURES, "caption": LABELS},
            {"image": datasets.Image()},
            "none .* hold the labels; rename one",
        ),
        ({"image": [*PICTURES[:-1], None], "label": LABELS}, KINDS, "row 7 has no image"),
        ({"image": PICTURES, "label": [*LABELS[:-1], None]}, KINDS, "row 7 has the label None"),
        ({"image": PICTURES, "label": [*LABELS[:-1], -1]}, KINDS, "label -1, out of range"),
        ({"image": [b"no picture"] * 8, "label": LABELS}, None, "picture of row 0 in memory.*not a picture"),
        ({"image": ["a.png"] * 8, "label": LABELS}, None, "image 0 is a str"),
    ],
)
def test_tables_of_something_else_are_refused(columns: dict[str, Any], kinds: Any, message: str) -> None:
    if kinds and "caption" in columns:
        kinds = kinds | {"caption": datasets.Value("int64")}
    refuses(message, table(columns, kinds))


def test_formats_that_run_programs_are_no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    files = [{"bytes": encoded(picture, "EPS"), "path": None} for picture in PICTURES]
    refuses("not a picture", table({"image": files, "label": LABELS}, KINDS))
    refuses("not a picture", table({"image": [file["bytes"] for file in files], "label": LABELS}))


def test_streams_and_transforms_are_refused() -> None:
    whole = table({"image": PICTURES, "label": LABELS}, KINDS)
    refuses("read in one direction only, being of type IterableDataset", whole.to_iterable_dataset())
    refuses("has a transform", whole.with_transform(lambda rows: rows))
