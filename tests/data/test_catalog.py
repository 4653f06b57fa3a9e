"""The catalogue: names, and the preprocessing of a task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsdistill.data.catalog import class_count, load, names
from dsdistill.data.config import DataConfig
from dsdistill.data.constants import CONSTANTS, IMAGENET_CONSTANTS, constants_of
from dsdistill.data.preprocess import Standardise
from dsdistill.errors import UserError
from tests.helpers.callbacks import Told
from tests.helpers.data import class_folders, fails, pixels, write_mnist

pytestmark = pytest.mark.usefixtures("data_home")


def test_task_constants_come_from_train_whichever_split_is_read() -> None:
    task, train = load(DataConfig(name="digits"), "train")
    for split in ("train", "test"):
        state = load(DataConfig(name="digits"), split)[0].preprocess.state()  # type: ignore[arg-type]
        assert torch.equal(state["mean"], Standardise.fit(train.images).mean)
    unit = train.unit(slice(None))
    x = task.preprocess(unit)
    assert abs(float(x.mean())) < 1e-5
    assert abs(float(x.std(correction=0)) - 1) < 1e-5


def test_published_constants_need_the_native_channels(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    mean = load(DataConfig(name="mnist", root=tmp_path, channels=3), "test")[0].preprocess.state()["mean"]
    assert mean.tolist() == pytest.approx([pixels(20, 28, 28, seed=20).mean() / 255] * 3)


def test_zca_is_fitted_on_train_and_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dsdistill.data.preprocess import ZCA

    config = DataConfig(name="digits", zca=True)
    task, train = load(config, "train")
    assert task.preprocess.kind == "zca"
    expected = ZCA.fit(train.images)(train.unit(slice(5)))
    assert torch.equal(task.preprocess(train.unit(slice(5))), expected)
    with monkeypatch.context() as patch:
        patch.setattr(ZCA, "fit", lambda *_: pytest.fail("fitted again"))
        task, _ = load(config, "test")
    assert torch.equal(task.preprocess(train.unit(slice(5))), expected)
    (cached,) = (tmp_path / "cache").rglob("*.zca")
    whole = cached.read_bytes()
    for damage in (whole[:50], whole[:-1], whole[:-5000] + bytes([whole[-5000] ^ 1]) + whole[-4999:]):
        cached.write_bytes(damage)
        told: list[str] = []
        mended = load(config, "test", Told(notify=told.append))[0]
        assert torch.equal(mended.preprocess(train.unit(slice(5))), expected)
        assert len(told) == 1
        assert "damaged" in told[0]
        assert cached.read_bytes() == whole
    fails("too large", "digits", zca=True, size=128)


def test_names_and_unknown_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {
        "digits",
        "cifar100",
        "imagemeow",
        "folder:PATH",
        "npz:PATH",
        "hf:NAME",
        "hf:PATH",
    } <= names().keys()
    fails("did you mean 'cifar10'", "cifer10")
    fails("did you mean 'folder:PATH'", "folder")
    fails("unknown data set 'cifar10:x'", "cifar10:x")
    fails(f"write it as folder:{tmp_path}", str(tmp_path))
    for file, kind in (("a.npz", "npz"), ("a.parquet", "hf"), ("a.tar", "hf")):
        (tmp_path / file).touch()
        fails(f"write it as {kind}:{tmp_path / file}", str(tmp_path / file))


def test_a_data_set_of_ones_own_is_called_without_its_folders(tmp_path: Path) -> None:
    class_folders(tmp_path / "pets")
    task, train = load(DataConfig(name=f"folder:{tmp_path / 'pets'}"), "train")
    assert task.name == "folder:pets"
    assert train.name == f"folder:{tmp_path / 'pets'}"


def test_imagenet_and_its_subsets_have_the_same_constants() -> None:
    assert constants_of("imagewoof") == constants_of("tiny-imagenet") == constants_of("imagenet")
    assert constants_of("imagenet") == IMAGENET_CONSTANTS
    assert (constants_of("cifar10"), constants_of("npz:a")) == (CONSTANTS["cifar10"], None)


def test_margins_bring_images_to_a_size(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    native = load(DataConfig(name="mnist", root=tmp_path), "test")[1]
    task, padded = load(DataConfig(name="mnist", root=tmp_path, size=33, pad=True), "test")
    assert task.shape == (1, 33, 33)
    assert torch.equal(padded.images[:, :, 2:30, 2:30], native.images)
    assert padded.images.sum() == native.images.sum()
    assert padded.fingerprint != native.fingerprint
    with pytest.raises(UserError, match="28 pixels, which margins cannot bring to 20"):
        load(DataConfig(name="mnist", root=tmp_path, size=20, pad=True), "test")
    with pytest.raises(UserError, match="needs the size to reach: pass --size"):
        DataConfig(name="mnist", pad=True)


def test_the_number_of_classes_is_known_before_they_are_read() -> None:
    assert class_count("digits") == load(DataConfig(name="digits"), "test")[0].num_classes
    several = {"cifar100": 100, "tiny-imagenet": 200, "imagenet": 1000, "imagewoof": 10}
    assert {name: class_count(name) for name in several} == several
    assert class_count("folder:/somewhere") is None
