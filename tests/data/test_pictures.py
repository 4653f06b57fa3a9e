"""Picture files of every mode, and files that are not pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.errors import UserError
from tests.helpers.data import class_folders, fails, pixels, save

pytestmark = pytest.mark.usefixtures("data_home")


def test_mixed_modes_and_sizes_become_what_was_asked_and_one_sentence_says_how(tmp_path: Path) -> None:
    pets = tmp_path / "pets"
    cat, dog = pets / "train" / "cat", pets / "train" / "dog"
    grey = pixels(8, 8)
    save(cat / "a_grey.png", grey)
    save(cat / "b_16bit.png", grey.astype(np.uint16) * 257)
    save(cat / "c_wide.png", np.full((30, 50, 3), (10, 200, 30), dtype=np.uint8))
    alpha = np.zeros((8, 8, 4), dtype=np.uint8)
    alpha[:, :4] = (200, 100, 50, 255)
    save(dog / "a_alpha.png", alpha)
    save(dog / "b_palette.gif", np.full((8, 8, 3), (255, 0, 0), dtype=np.uint8), "P")
    save(dog / "c_cmyk.jpg", np.full((8, 8, 3), 255, dtype=np.uint8), "CMYK")
    class_folders(pets / "test", per_class=1)
    told: list[str] = []
    task, train = load(DataConfig(name=f"folder:{pets}"), "train", told.append)
    assert task.shape == (3, 8, 8)
    image = train.images
    assert torch.equal(image[0], torch.from_numpy(grey).expand(3, 8, 8))
    assert torch.equal(image[1], image[0])  # 16 bits of the same picture
    assert image[2].flatten(1).float().mean(1).tolist() == [10, 200, 30]
    assert image[3, :, 0, 0].tolist() == [200, 100, 50]
    assert image[3, :, 0, 7].tolist() == [255, 255, 255]  # transparent: white shows through
    assert image[4, :, 3, 3].tolist() == [255, 0, 0]
    assert int(image[5].min()) >= 254
    assert told == [
        f"folder:{pets} (train): 6 images, 1 not 8x8 resized (bilinear, antialiased, aspect not kept), "
        "1 with transparency composited onto white, 1 16-bit scaled to 8 bits, "
        "2 greyscale repeated to 3 channels"
    ]
    told.clear()
    _, small = load(DataConfig(name=f"folder:{pets}", channels=1, size=4), "train", told.append)
    assert small.images.shape == (6, 1, 4, 4)
    assert "4 colour reduced to luma" in told[0]


@pytest.mark.parametrize("damage", [lambda raw: b"no picture", lambda raw: raw[: len(raw) // 2]])
def test_a_corrupt_picture_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    broken = class_folders(tmp_path / "pets", size=32) / "cat" / "3.png"
    broken.write_bytes(damage(broken.read_bytes()))
    for split in ("train", "test"):
        if str(broken) in _error(DataConfig(name=f"folder:{tmp_path / 'pets'}"), split):
            return
    pytest.fail("the damaged file was never named")


def test_pictures_of_unknown_range_and_dangling_links_are_named(tmp_path: Path) -> None:
    pets = class_folders(tmp_path / "pets")
    save(pets / "cat" / "0.tif", pixels(8, 8).astype(np.float32))
    fails("0.tif holds floating-point pixels", f"folder:{pets}", test_fraction=0.01)
    (pets / "cat" / "0.tif").unlink()
    (pets / "cat" / "0.png").rename(tmp_path / "away.png")
    (pets / "cat" / "0.png").symlink_to(tmp_path / "nowhere.png")
    fails("cannot read .*0.png", f"folder:{pets}", test_fraction=0.01)


def _error(config: DataConfig, split: str) -> str:
    try:
        load(config, split)  # type: ignore[arg-type]
    except UserError as error:
        return str(error)
    return ""
