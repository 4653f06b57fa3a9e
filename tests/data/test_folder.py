"""Folders of pictures: how they are split, decoded, converted and cached."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dsdistill.data import decode as decode_module
from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.data.convert import stratified
from dsdistill.errors import UserError
from tests.helpers.data import class_folders, fails, pixels, save

pytestmark = pytest.mark.usefixtures("data_home")


def test_folder_with_train_and_test(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", per_class=3)
    class_folders(tmp_path / "val", per_class=2)
    (tmp_path / "train" / ".thumbnails").mkdir()
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not a picture")
    told: list[str] = []
    task, train = load(DataConfig(name=f"folder:{tmp_path}"), "train", told.append)
    _, test = load(DataConfig(name=f"folder:{tmp_path}"), "test", told.append)
    assert told == []  # nothing was converted
    assert (task.classes, task.shape, task.mirror) == (("cat", "dog"), (3, 8, 8), True)
    assert torch.equal(train.images[4], torch.from_numpy(pixels(8, 8, 3, seed=101)).permute(2, 0, 1))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])


def test_one_folder_is_split_by_class_and_always_alike(tmp_path: Path) -> None:
    config = DataConfig(name=f"folder:{class_folders(tmp_path / 'pets', per_class=10)}", test_fraction=0.3)
    train, test = (load(config, split)[1] for split in ("train", "test"))  # type: ignore[arg-type]
    assert (train.counts.tolist(), test.counts.tolist()) == ([7, 7], [3, 3])
    rows = {image.numpy().tobytes() for image in torch.cat([train.images, test.images])}
    assert len(rows) == 20  # disjoint, and nothing lost
    assert load(config, "train")[1].fingerprint == train.fingerprint


def test_every_class_keeps_an_image_on_both_sides() -> None:
    labels = torch.tensor([0] * 2 + [1] * 50 + [2] * 3)
    for fraction in (0.01, 0.5, 0.99):
        split = stratified(labels, fraction, ("a", "b", "c"))
        assert all(torch.bincount(labels[part], minlength=3).all() for part in split.values())
        assert sorted(torch.cat(list(split.values())).tolist()) == list(range(55))


def test_mixed_modes_and_sizes_become_what_was_asked_and_one_sentence_says_how(tmp_path: Path) -> None:
    cat, dog = tmp_path / "train" / "cat", tmp_path / "train" / "dog"
    grey = pixels(8, 8)
    save(cat / "a_grey.png", grey)
    save(cat / "b_16bit.png", grey.astype(np.uint16) * 257)
    save(cat / "c_wide.png", np.full((30, 50, 3), (10, 200, 30), dtype=np.uint8))
    alpha = np.zeros((8, 8, 4), dtype=np.uint8)
    alpha[:, :4] = (200, 100, 50, 255)
    save(dog / "a_alpha.png", alpha)
    save(dog / "b_palette.gif", np.full((8, 8, 3), (255, 0, 0), dtype=np.uint8), "P")
    save(dog / "c_cmyk.jpg", np.full((8, 8, 3), 255, dtype=np.uint8), "CMYK")
    class_folders(tmp_path / "test", per_class=1)
    told: list[str] = []
    task, train = load(DataConfig(name=f"folder:{tmp_path}"), "train", told.append)
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
        f"folder:{tmp_path} (train): 6 images, 1 not 8x8 resized (bilinear, antialiased, aspect not kept), "
        "1 with transparency composited onto white, 1 16-bit scaled to 8 bits, "
        "2 greyscale repeated to 3 channels"
    ]
    told.clear()
    _, small = load(DataConfig(name=f"folder:{tmp_path}", channels=1, size=4), "train", told.append)
    assert small.images.shape == (6, 1, 4, 4)
    assert "4 colour reduced to luma" in told[0]


def test_channels_and_size_are_inferred_from_train(tmp_path: Path) -> None:
    for i, shape in enumerate([(40, 50), (33, 90), (70, 64), (45, 32)]):
        save(tmp_path / "train" / "ab"[i % 2] / f"{i}.png", pixels(*shape))
    class_folders(tmp_path / "test", classes=("a", "b"), size=16)
    task, train = load(DataConfig(name=f"folder:{tmp_path}"), "train")
    assert task.shape == (1, 32, 32)  # three of four shorter sides come down to 32, and all are grey
    assert train.images.shape == (4, 1, 32, 32)
    task, test = load(DataConfig(name=f"folder:{tmp_path}"), "test")
    assert task.shape == tuple(test.images.shape[1:]) == (1, 32, 32)


def test_decoding_is_cached_and_a_damaged_cache_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig(name=f"folder:{class_folders(tmp_path / 'pets')}")
    first = load(config, "train")[1]
    whole = first.fingerprint
    (cached,) = (tmp_path / "cache").rglob("*.npy")
    assert not list((tmp_path / "cache").rglob("*.part"))

    def forbidden(*_: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(decode_module, "pixels", forbidden)
        patch.setattr(decode_module, "probe", forbidden)
        assert load(config, "train")[1].fingerprint == whole
    first.images.zero_()  # a stray write stays in memory
    assert load(config, "train")[1].fingerprint == whole
    for damaged in (cached.read_bytes()[:-1], cached.read_bytes()[:20], b"", b"garbage" * 9):
        cached.write_bytes(damaged)
        assert load(config, "train")[1].fingerprint == whole
    for survey in (tmp_path / "cache").rglob("*.json"):
        survey.write_text("[[1")
    assert load(config, "train")[1].fingerprint == whole


def test_a_cache_is_read_where_no_memory_is_promised_for_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "pets" / "train", 3)
    class_folders(tmp_path / "pets" / "test", 1)
    config = DataConfig(name=f"folder:{tmp_path / 'pets'}")
    _, before = load(config, "train")
    opened = np.load

    def strict(path: Path, mmap_mode: str, **told: bool) -> np.ndarray:
        if mmap_mode == "c":
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return opened(path, mmap_mode=mmap_mode, **told)

    monkeypatch.setattr(decode_module.np, "load", strict)
    monkeypatch.setattr(decode_module, "pixels", pytest.fail)  # nothing is decoded again
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, after = load(config, "train")
    assert torch.equal(before.images, after.images)


def test_an_edited_picture_is_decoded_anew(tmp_path: Path) -> None:
    config = DataConfig(name=f"folder:{class_folders(tmp_path / 'pets')}")
    before = load(config, "train")[1].fingerprint
    for path in (tmp_path / "pets" / "cat").iterdir():
        save(path, pixels(8, 8, 3, seed=999))
    assert load(config, "train")[1].fingerprint != before


def test_an_unwritable_cache_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "file"))
    fails("cannot write the cache file.*set DSDISTILL_CACHE", f"folder:{class_folders(tmp_path / 'pets')}")


def test_folder_errors(tmp_path: Path) -> None:
    fails("no such folder", f"folder:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    fails("holds no class folders", f"folder:{tmp_path / 'empty'}")
    fails("one class only", f"folder:{class_folders(tmp_path / 'one', classes=('cat',))}")
    pets = class_folders(tmp_path / "pets")
    (pets / "ferret").mkdir()
    fails("ferret holds no pictures", f"folder:{pets}")
    save(pets / "ferret" / "0.png", pixels(8, 8))
    fails("class 'ferret' has 1 image", f"folder:{pets}")
    class_folders(tmp_path / "no train" / "test")
    fails("test/ but no train/", f"folder:{tmp_path / 'no train'}")
    class_folders(tmp_path / "odd" / "train")
    class_folders(tmp_path / "odd" / "test", classes=("cat", "wolf"))
    fails("different classes: 'dog'", f"folder:{tmp_path / 'odd'}")


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


def test_decoding_reports_its_progress_and_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decode_module, "BATCH", 4)
    config = DataConfig(name=f"folder:{class_folders(tmp_path / 'pets', per_class=6)}", test_fraction=0.2)
    calls: list[tuple[str, int, int]] = []
    load(config, "train", progress=lambda *call: calls.append(call))
    steps = (0, 4, 8, 10)  # of the ten files of train
    assert calls == [
        (f"{config.name}: {work}", done, 10)
        for work in ("reading headers", "decoding train")
        for done in steps
    ]
    calls.clear()
    load(config, "train", progress=lambda *call: calls.append(call))
    assert calls == []  # all is cached
    assert capfd.readouterr() == ("", "")


def _error(config: DataConfig, split: str) -> str:
    try:
        load(config, split)  # type: ignore[arg-type]
    except UserError as error:
        return str(error)
    return ""
