"""Decoding many picture files: the cache, and progress."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from dsdistill.data import decode as decode_module
from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from tests.helpers.data import class_folders, fails, pixels, save

pytestmark = pytest.mark.usefixtures("data_home")


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
