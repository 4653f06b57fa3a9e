"""Options of labelling."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dsdistill.augment.mix import CutMix, Mixup
from dsdistill.errors import UserError
from dsdistill.labelling.config import LabellingConfig, resolve
from tests.helpers.storage import make


def test_defaults() -> None:
    config = resolve(teachers=["pool.h5"], views=None)
    assert (config.kind, config.protocol) == ("static", None)
    config = resolve(teachers=["pool.h5"], views=300)
    assert (config.kind, config.protocol) == ("views", "fkd")
    assert config.mix == CutMix(probability=1.0, beta=1.0)
    assert resolve(views=3, mixing="mixup").mix == Mixup(probability=1.0, beta=0.8)
    assert resolve(views=3, mixing="none").mix is None
    assert resolve(views=3, mode="train").protocol == "cv-dd"
    assert resolve(views=3, mode="train", encoding="distances").protocol == "nrr-dd"


def test_what_a_file_tells_names_no_folders_and_nothing_that_does_not_matter() -> None:
    config = resolve(teachers=["/home/anna/pool.h5#1@3", "~/b.h5"], mode="train")
    shared = config.shared()
    assert shared["teachers"] == ["pool.h5#1@3", "b.h5"]
    assert "mixing" not in shared
    assert "crop_scale" in resolve(teachers=["a.h5"], views=2).shared()


@pytest.mark.parametrize(
    ("encoding", "top", "expected"),
    [
        ("float32", None, 17 + 40),
        ("float16", None, 17 + 20),
        ("uint8", None, 17 + 18),
        ("top", 2, 17 + 14),
        ("distances", None, 21),
    ],
)
def test_bytes_of_a_view(encoding: Any, top: int | None, expected: int) -> None:
    assert LabellingConfig(views=1, encoding=encoding, top=top).bytes_of_view(10) == expected


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"views": -1}, "option 'views' is -1"),
        ({"views": 3, "keep": 0.0}, "option 'keep' is 0.0: input should be greater than 0"),
        ({"views": 3, "keep": 1.5}, "option 'keep' is 1.5"),
        (
            {"views": 3, "mixing": "blend"},
            "option 'mixing' is 'blend': input should be 'none', 'cutmix' or 'mixup'",
        ),
        ({"views": 3, "encoding": "float8"}, "option 'encoding' is 'float8'"),
        ({"views": 3, "crop_scale": (0.5, 0.1)}, "shares of a crop lie between 0 and 1, smaller first"),
        ({"views": 3, "crop_scale": (0.0, 0.1)}, "option 'crop_scale.0' is 0.0|option 'crop_scale' is"),
        ({"views": 3, "encoding": "top"}, "give both, or neither"),
        ({"views": 3, "top": 3}, "give both, or neither"),
        ({"views": 3, "encoding": "distances", "mixing": "none"}, "choose a mixing, or another encoding"),
        ({"views": 3, "beta": 0.0}, "option 'beta' is 0.0"),
        ({"weights": "best"}, "option 'weights' is 'best': input should be 'equal' or 'accuracy'"),
        ({"mean": "votes"}, "option 'mean' is 'votes'"),
        ({"mode": "test"}, "option 'mode' is 'test'"),
        ({"keep": 0.5}, "keep is an option of views; ask for some"),
        ({"mixing": "mixup"}, "mixing is an option of views"),
        ({"views": 2**70}, "more than 64 bits"),
    ],
)
def test_bad_options_are_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        resolve(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"views": 1, "encoding": "top", "top": 4}, "top is 4, and there are 3 classes"),
        ({"mode": "train", "batch_size": 11}, "12 images in batches of 11 leave one alone"),
        ({"mode": "train", "batch_size": 1}, "12 images in batches of 1 leave one alone"),
    ],
)
def test_options_that_a_set_does_not_take(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        LabellingConfig(**options).check(make())
    LabellingConfig(mode="train", batch_size=10).check(make())
    LabellingConfig(batch_size=11).check(make())


def test_views_are_of_square_images() -> None:
    wide = make(images=torch.rand(12, 3, 8, 9))
    LabellingConfig().check(wide)
    with pytest.raises(UserError, match="views are of square images, not of 8×9; label them without views"):
        LabellingConfig(views=1).check(wide)
