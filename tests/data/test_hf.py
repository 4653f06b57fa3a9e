"""Data sets that are read through Hugging Face's `datasets`: files of every kind, and none on a server."""

from __future__ import annotations

import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from tests.helpers.data import class_folders, fails, pixels

pytestmark = pytest.mark.usefixtures("data_home")

ARRAYS = [pixels(8, 8, 3, seed=seed) for seed in range(8)]
LABELS = [0, 1] * 4
EXPECTED = torch.from_numpy(np.stack(ARRAYS)).permute(0, 3, 1, 2)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the package `datasets`, which keeps its copies in the test's own folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True, raising=False)
    return datasets


def splits(datasets: Any) -> Any:
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    columns = {"image": [Image.fromarray(array) for array in ARRAYS], "label": LABELS}
    whole = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    return datasets.DatasetDict({"train": whole, "test": whole.select([0, 3])})


def check(name: str, classes: tuple[str, ...]) -> None:
    """Check that both splits are there, and nothing but the train split."""
    task, train = load(DataConfig(name=name), "train")
    assert torch.equal(train.images, EXPECTED)
    assert (train.labels.tolist(), task.classes) == (LABELS, classes)
    assert load(DataConfig(name=name), "test")[1].labels.tolist() == [0, 1]


def test_a_saved_folder_is_read(tmp_path: Path, package: Any) -> None:
    splits(package).save_to_disk(tmp_path / "saved")
    check(f"hf:{tmp_path / 'saved'}", ("cat", "dog"))
    assert load(DataConfig(name=f"hf:{tmp_path / 'saved'}"), "train")[0].name == "hf:./saved"
    splits(package)["train"].save_to_disk(tmp_path / "one")
    task, train = load(DataConfig(name=f"hf:{tmp_path / 'one'}"), "train")
    assert (len(train), task.classes) == (6, ("cat", "dog"))  # the rest is held out


def test_parquet_is_read_from_a_folder_or_a_file(tmp_path: Path, package: Any) -> None:
    (tmp_path / "shards").mkdir()
    for split, table in splits(package).items():
        table.to_parquet(tmp_path / "shards" / f"{split}-00000.parquet")
    check(f"hf:{tmp_path / 'shards'}", ("cat", "dog"))
    task, train = load(DataConfig(name=f"hf:{tmp_path / 'shards' / 'train-00000.parquet'}"), "train")
    assert (len(train), task.classes) == (6, ("cat", "dog"))


def test_shards_of_a_web_dataset_are_read_from_a_folder_or_a_file(tmp_path: Path, package: Any) -> None:
    (tmp_path / "shards").mkdir()
    for split, rows in (("train", range(8)), ("test", (0, 3))):
        with tarfile.open(tmp_path / "shards" / f"{split}-000.tar", "w") as shard:
            for row in rows:
                buffer = BytesIO()
                Image.fromarray(ARRAYS[row]).save(buffer, "PNG")
                for suffix, content in (("png", buffer.getvalue()), ("cls", str(LABELS[row]).encode())):
                    member = tarfile.TarInfo(f"{row:04d}.{suffix}")
                    member.size = len(content)
                    shard.addfile(member, BytesIO(content))
    check(f"hf:{tmp_path / 'shards'}", ("0", "1"))
    assert len(load(DataConfig(name=f"hf:{tmp_path / 'shards' / 'train-000.tar'}"), "train")[1]) == 6


def test_a_folder_of_pictures_is_read(tmp_path: Path, package: Any) -> None:
    for split in ("train", "test"):
        class_folders(tmp_path / "pets" / split, 3)
    task, train = load(DataConfig(name=f"hf:{tmp_path / 'pets'}"), "train")
    assert task.classes == ("cat", "dog")
    _, of_folder = load(DataConfig(name=f"folder:{tmp_path / 'pets'}"), "train")
    assert train.fingerprint == of_folder.fingerprint


def test_what_is_not_there_is_one_sentence(
    tmp_path: Path, package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()
    fails("no such file or folder: .*nowhere; write hf:PATH", f"hf:{tmp_path / 'nowhere'}")
    fails("cannot load hf:pets: .*; write hf:./pets for what lies here", "hf:pets")
    fails("cannot load hf:no/such: .*; a folder is written hf:./FOLDER", "hf:no/such")
    fails("cannot load hf:./pets", "hf:./pets")
    (tmp_path / "a.csv").write_text("a,b")
    fails(r"a\.csv is neither Parquet", f"hf:{tmp_path / 'a.csv'}")
    (tmp_path / "a.parquet").write_text("no parquet")
    fails("cannot load hf:.*a.parquet: ", f"hf:{tmp_path / 'a.parquet'}")
    shown = not package.utils.are_progress_bars_disabled()
    assert shown  # as they were


def test_without_the_package_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # type: ignore[arg-type]
    fails(r'hf:mnist needs the package datasets: pip install "dsdistill\[hf\]"', "hf:mnist")
