"""Data sets that are read through Hugging Face's `datasets`: files of every kind, and none on a server."""

from __future__ import annotations

import dataclasses
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dsdistill.data.catalog import load, opened
from dsdistill.data.config import DataConfig
from dsdistill.data.items import ItemPart
from dsdistill.errors import UserError
from tests.helpers.data import class_folders, fails, in_memory, pixels

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


def test_a_table_opens_no_picture_outside_the_data_set(tmp_path: Path, package: Any) -> None:
    class_folders(tmp_path / "private", 4)
    (tmp_path / "got").mkdir()
    names = [str(tmp_path / "private" / kind / f"{i}.png") for kind in ("cat", "dog") for i in range(4)]
    for outside in (names, [f"{tmp_path}/got/../private/{Path(name).parent.name}/0.png" for name in names]):
        pictures = [{"bytes": None, "path": name} for name in outside]
        kinds = {"image": {"bytes": package.Value("binary"), "path": package.Value("string")}}
        table = package.Dataset.from_dict(
            {"image": pictures, "label": [0] * 4 + [1] * 4},
            features=package.Features(kinds | {"label": package.ClassLabel(names=["cat", "dog"])}),
        )
        table.to_parquet(tmp_path / "got" / "a.parquet")
        for place in ("got", "got/a.parquet"):
            fails("row 0 names '.*, which is not part of the data set", f"hf:{tmp_path / place}")
    assert len(in_memory(table)[1]) == 6  # in a table of one's own


class Server:
    """Stands for `datasets.load_dataset`, and keeps whether it might have asked a server."""

    def __init__(self, package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._package, self.asked = package, list[bool]()
        monkeypatch.setattr(package, "load_dataset", self)
        for place in (package.config, sys.modules["huggingface_hub"].constants):
            monkeypatch.setattr(place, "HF_HUB_OFFLINE", False)

    def __call__(self, *_: Any) -> Any:
        hub = sys.modules["huggingface_hub"].constants
        offline = {self._package.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE}
        assert len(offline) == 1
        self.asked.append(offline == {False})
        if offline == {True}:
            raise ConnectionError("Offline mode is enabled.")
        return splits(self._package)


def test_a_name_that_may_not_be_fetched_asks_no_server(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server, config = Server(package, monkeypatch), DataConfig(name="hf:anna/pets")
    with pytest.raises(UserError, match="hf:anna/pets is not on this machine; pass --download"):
        opened(config, fetch=False)
    source = opened(config)
    assert source is not None
    assert server.asked == [False, True]
    assert len(load(config, "train", source=source)[1]) == 8


def test_a_split_is_decoded_once(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server, config = Server(package, monkeypatch), DataConfig(name="hf:anna/pets")
    decoded, read_part = [], ItemPart.read

    def counted(part: ItemPart, *arguments: Any) -> Any:
        decoded.append(part)
        return read_part(part, *arguments)

    monkeypatch.setattr(ItemPart, "read", counted)
    source = opened(config)
    load(config, "test", source=source)
    load(dataclasses.replace(config, zca=True), "train", source=source)
    assert (server.asked, len(decoded)) == ([True], 2)
    load(config, "test")
    assert (server.asked, len(decoded)) == ([True, True], 4)


def test_a_version_that_runs_code_of_data_is_refused(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "__version__", "3.6.0")
    fails("hf:mnist needs the package datasets of version 4 or later, not 3.6.0", "hf:mnist")


def test_without_the_package_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # type: ignore[arg-type]
    fails(r'hf:mnist needs the package datasets: pip install "dsdistill\[hf\]"', "hf:mnist")
