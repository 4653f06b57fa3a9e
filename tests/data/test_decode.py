"""Decoding many picture files: the cache, and progress."""

from __future__ import annotations

import errno
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsdistill.data import decode as decode_module
from dsdistill.data import mapped
from dsdistill.data import real as real_module
from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.data.listing import Listing
from dsdistill.data.pictures import Decoding
from dsdistill.data.preprocess import Standardise
from tests.helpers.callbacks import Told
from tests.helpers.data import class_folders, fails, pixels, save

pytestmark = pytest.mark.usefixtures("data_home")


def test_decoding_is_cached_and_a_damaged_cache_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig(name=f"folder:{class_folders(tmp_path / 'pets')}")
    first = load(config, "train")[1]
    whole = first.fingerprint
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1
    assert not list((tmp_path / "cache").rglob("*.part"))

    def forbidden(*_: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(decode_module, "pixels", forbidden)
        patch.setattr(decode_module, "probe", forbidden)
        assert load(config, "train")[1].fingerprint == whole
    first.images.zero_()  # a stray write stays in memory
    assert load(config, "train")[1].fingerprint == whole
    for survey in (tmp_path / "cache").rglob("*.json"):
        survey.write_text("[[1")
    assert load(config, "train")[1].fingerprint == whole


def test_any_changed_byte_of_the_cache_is_mended_with_a_word(tmp_path: Path) -> None:
    config = DataConfig(name=f"folder:{class_folders(tmp_path / 'pets', size=4)}")
    whole = load(config, "train")[1].fingerprint
    (cached,) = (tmp_path / "cache").rglob("*.npy")
    right = cached.read_bytes()
    header = np.lib.format.magic(1, 0)
    places = [0, len(header), 40, *range(128, len(right), 131), len(right) - 70, len(right) - 1]
    flipped = (right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :] for at in places)
    for damaged in (*flipped, right[:-1], right[:20], b"", b"garbage" * 99, right + b"\0"):
        cached.write_bytes(damaged)
        told: list[str] = []
        assert load(config, "train", Told(notify=told.append))[1].fingerprint == whole
        assert len(told) == 1
        assert "is damaged" in told[0]
        assert cached.read_bytes() == right


def test_a_cache_that_the_disk_does_not_keep_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = iter(("0" * 64, "1" * 64))  # of what is written, and of what is read back
    monkeypatch.setattr(decode_module, "fingerprint", lambda *_: next(marks))
    fails("reads back otherwise than it was written", f"folder:{class_folders(tmp_path / 'pets')}")
    assert not list((tmp_path / "cache").rglob("*.npy"))
    assert not list((tmp_path / "cache").rglob("*.part"))


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


def test_options_and_pillow_make_caches_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pets = class_folders(tmp_path / "pets")

    def cached(**options: Any) -> set[Path]:
        load(DataConfig(name=f"folder:{pets}", size=8, channels=1, **options), "train")
        return set((tmp_path / "cache").rglob("*.npy"))

    assert [len(cached(**each)) for each in ({}, {"exif": True}, {"range": 9}, {})] == [1, 2, 3, 3]
    monkeypatch.setattr(decode_module.PIL, "__version__", "1.1.7")
    assert len(cached()) == 4


def test_class_names_are_of_the_key(tmp_path: Path) -> None:
    """Those of Tiny ImageNet stand in a file of their own; the fingerprint covers them."""
    paths = tuple(sorted(class_folders(tmp_path / "pets").rglob("*.png")))
    labels = torch.tensor([0, 1]).repeat_interleave(6)
    for classes in (("cat", "dog"), ("Felis", "Canis")):
        listing = Listing("pets", "train", paths, labels, classes)
        told: list[str] = []
        assert decode_module.decode(listing, Decoding(8, 3), Told(notify=told.append)).classes == classes
        assert told == []


def test_an_unwritable_cache_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "file"))
    fails("cannot write the cache file.*set DSDISTILL_CACHE", f"folder:{class_folders(tmp_path / 'pets')}")


def test_decoding_reports_its_progress_and_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decode_module, "BATCH", 4)
    config = DataConfig(name=f"folder:{class_folders(tmp_path / 'pets', per_class=6)}", test_fraction=0.2)
    calls: list[tuple[str, int, int]] = []
    load(config, "train", Told(read=lambda *call: calls.append(call)))
    steps = (0, 4, 8, 10)  # of the ten files of train
    assert calls == [
        (f"{config.name}: {work}", done, 10)
        for work in ("reading headers", "decoding train")
        for done in steps
    ]
    calls.clear()
    load(config, "train", Told(read=lambda *call: calls.append(call)))
    assert calls == []  # all is cached
    assert capfd.readouterr() == ("", "")


def hashed(config: DataConfig) -> list[str]:
    """Load the train split; return its fingerprint, and what was said, after how often pixels were hashed."""
    times: list[str] = []
    whole = real_module.fingerprint

    def counted(*arguments: Any) -> str:
        times.append("hashed")
        return whole(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real_module, "fingerprint", counted)
        data = load(config, "train", Told(notify=times.append))[1]
        return [*times, data.fingerprint]


def test_a_large_cache_that_nothing_has_touched_is_not_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "IN_MEMORY", 10)
    config = DataConfig(name=f"folder:{class_folders(tmp_path / 'pets')}")
    first, mark = hashed(config)
    assert first == "hashed"
    assert hashed(config) == [mark]
    (cached,) = (tmp_path / "cache").rglob("*.npy")
    os.utime(cached)  # touched, so that nobody knows what else was done
    assert hashed(config) == ["hashed", mark]
    assert hashed(config) == [mark]
    with monkeypatch.context() as later:
        now = time.time() + 31 * 24 * 3600
        later.setattr("dsdistill.data.cache.time.time", lambda: now)
        assert hashed(config)[0] == "hashed"
    raw = bytearray(cached.read_bytes())
    raw[200] ^= 1
    stat = cached.stat()
    cached.write_bytes(raw)
    os.utime(cached, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = hashed(config)
    assert (found[0], found[-1]) == ("hashed", mark)
    assert "is damaged" in found[1]


def test_a_small_cache_is_always_hashed(tmp_path: Path) -> None:
    config = DataConfig(name=f"folder:{class_folders(tmp_path / 'pets')}")
    for _ in range(3):
        assert hashed(config)[0] == "hashed"
    assert not list((tmp_path / "cache").rglob("*.verified"))


def test_mean_and_deviation_of_large_data_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "IN_MEMORY", 10)
    config = DataConfig(name=f"folder:{class_folders(tmp_path / 'pets')}")
    before = load(config, "train")[0].preprocess
    monkeypatch.setattr(Standardise, "fit", pytest.fail)
    for split in ("train", "test"):
        after = load(config, split)[0].preprocess  # type: ignore[arg-type]
        assert all(map(torch.equal, before.state().values(), after.state().values()))
