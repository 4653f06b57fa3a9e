"""The packaged data sets, from tiny copies of their files or from the real ones."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from dsdistill.data import packaged
from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.data.preprocess import Standardise
from tests.helpers.data import fails, pixels, write_idx, write_mnist

pytestmark = pytest.mark.usefixtures("data_home")


def test_digits_are_scikit_learns_split_and_scaled() -> None:
    from sklearn.datasets import load_digits

    task, train = load(DataConfig(name="digits"), "train")
    _, test = load(DataConfig(name="digits"), "test")
    assert (len(train), len(test)) == (1347, 450)
    assert task.shape == (1, 8, 8)
    assert task.classes == tuple("0123456789")
    assert not task.mirror
    # every original image is in exactly one split, its 17 grey levels intact
    both = torch.cat([train.images, test.images]).flatten(1).double() / 255 * 16
    originals = {row.tobytes() for row in load_digits().data.astype(np.uint8)}
    assert {row.round().byte().numpy().tobytes() for row in both} == originals
    assert int(train.images.max()) == 255
    share = test.counts / (test.counts + train.counts)
    assert float((share - 0.25).abs().max()) < 0.01
    again = load(DataConfig(name="digits"), "train")[1]
    assert again.fingerprint == train.fingerprint != test.fingerprint


@pytest.mark.parametrize(
    ("name", "inside", "ending", "mirror", "mean"),
    [
        ("mnist", "MNIST/raw", "", False, 0.1307),
        ("fashion-mnist", ".", ".gz", True, 0.2861),
        ("kmnist", "KMNIST/raw", ".gz", False, None),
    ],
)
def test_idx_data_sets(
    tmp_path: Path, name: str, inside: str, ending: str, mirror: bool, mean: float | None
) -> None:
    write_mnist(tmp_path / inside, ending)
    task, test = load(DataConfig(name=name, root=tmp_path), "test")
    assert torch.equal(test.images, torch.from_numpy(pixels(10, 28, 28, seed=10))[:, None])
    assert test.labels.tolist() == list(range(10))
    assert task.mirror == mirror
    train_mean = pixels(20, 28, 28, seed=20).mean() / 255
    assert float(task.preprocess.state()["mean"]) == pytest.approx(mean or train_mean, abs=1e-6)


def test_fashion_mnist_is_found_in_debians_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "debian")
    monkeypatch.setattr(packaged, "DEBIAN_FASHION", tmp_path / "debian")
    assert load(DataConfig(name="fashion-mnist"), "train")[0].classes[9] == "Ankle boot"
    fails("pass --download", "mnist")


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="dataset-fashion-mnist is not installed"
)
def test_real_fashion_mnist_has_the_published_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "DEBIAN_FASHION", Path("/usr/share/datasets/fashion-mnist"))
    task, train = load(DataConfig(name="fashion-mnist"), "train")
    assert train.images.shape == (60000, 1, 28, 28)
    assert train.counts.tolist() == [6000] * 10
    computed, published = Standardise.fit(train.images), task.preprocess.state()
    torch.testing.assert_close(computed.mean, published["mean"], atol=2e-4, rtol=0)
    torch.testing.assert_close(computed.std, published["std"], atol=2e-4, rtol=0)


def test_files_of_a_data_sets_own_folder_and_packed_ones_come_first(tmp_path: Path) -> None:
    """All three are named alike in the root; and an unpacked file may be half written."""
    own = tmp_path / "KMNIST" / "raw"
    own.mkdir(parents=True)
    for folder, seed in ((tmp_path, 1), (own, 2)):
        for prefix in ("train", "t10k"):
            write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", pixels(10, 28, 28, seed=seed))
            write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", np.arange(10, dtype=np.uint8))
    (own / "train-images-idx3-ubyte").write_bytes(b"half")
    (own / "train-labels-idx1-ubyte").write_bytes(b"half")
    for name, seed in (("kmnist", 2), ("mnist", 1)):
        _, train = load(DataConfig(name=name, root=tmp_path), "train")
        assert np.array_equal(train.images[:, 0].numpy(), pixels(10, 28, 28, seed=seed))


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[:-100])
    fails("train-images.*not a whole IDX file", "mnist", root=tmp_path)
    write_idx(images, pixels(3, 28, 28))
    fails("do not fit each other", "mnist", root=tmp_path)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_headers_that_claim_what_is_not_there(tmp_path: Path, ending: str) -> None:
    write_mnist(tmp_path, ending)
    images = tmp_path / f"train-images-idx3-ubyte{ending}"
    whole = gzip.decompress(images.read_bytes()) if ending else images.read_bytes()
    huge = struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    for data in (
        *(huge, struct.pack(">HBB3I", 0, 8, 3, 0, 28, 28), struct.pack(">HBB", 0, 8, 255), b"", whole[:-1]),
        whole + b"x",
    ):
        images.write_bytes(gzip.compress(data) if ending else data)
        fails("train-images.*not a whole IDX file", "mnist", root=tmp_path)
    images.unlink()
    os.mkfifo(images)
    fails("not found", "mnist", root=tmp_path)


def test_packed_files_do_not_become_larger_than_they_state(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 20) + bytes(100_000_000), 1))
    tracemalloc.start()
    fails("train-labels.*does not fit its content", "mnist", root=tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_a_bad_test_split_is_found_when_train_is_read(tmp_path: Path) -> None:
    for labels in (np.arange(9, dtype=np.uint8), np.full(10, 200, np.uint8)):
        write_mnist(tmp_path)
        write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", labels)
        fails("t10k-images.*do not fit each other", "mnist", root=tmp_path)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_cifar(root: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write batches in CIFAR's own format and tell torchvision their MD5 sums, so that its check stays on."""
    from torchvision import datasets

    cls = getattr(datasets, kind)
    folder = root / cls.base_folder
    folder.mkdir(parents=True)
    key, count = ("labels", 10) if kind == "CIFAR10" else ("fine_labels", 100)
    for field in ("train_list", "test_list"):
        sums = []
        for seed, (file, _) in enumerate(getattr(cls, field)):
            batch = {"data": pixels(count, 3072, seed=seed), key: list(range(count))}
            (folder / file).write_bytes(pickle.dumps(batch))
            sums.append([file, md5(folder / file)])
        monkeypatch.setattr(cls, field, sums)
    meta = folder / cls.meta["filename"]
    meta.write_bytes(pickle.dumps({cls.meta["key"]: [f"thing {k}" for k in range(count)]}))
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(meta)})


@pytest.mark.parametrize(("kind", "red"), [("CIFAR10", 0.4914), ("CIFAR100", 0.5071)])
def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, red: float) -> None:
    write_cifar(tmp_path, kind, monkeypatch)
    task, test = load(DataConfig(name=kind.lower(), root=tmp_path), "test")
    k = task.num_classes
    assert torch.equal(test.images, torch.from_numpy(pixels(k, 3, 32, 32, seed=0)))
    assert test.labels.tolist() == list(range(k))
    assert task.classes[3] == "thing 3"
    assert task.preprocess.state()["mean"][0] == pytest.approx(red)
    batch = next((tmp_path).rglob("test*"))
    batch.write_bytes(batch.read_bytes() + b"!")
    fails("published MD5 sums were not found", kind.lower(), root=tmp_path)


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    images = pixels(5, 3, 32, 32)
    file = tmp_path / "train_32x32.mat"
    savemat(
        file, {"X": images.transpose(2, 3, 1, 0), "y": np.array([[10], [1], [2], [9], [10]], dtype=np.uint8)}
    )
    url = SVHN.split_list["train"][0]
    monkeypatch.setattr(SVHN, "split_list", {"train": [url, file.name, md5(file)]})
    task, train = load(DataConfig(name="svhn", root=tmp_path), "train")
    assert torch.equal(train.images, torch.from_numpy(images))
    assert train.labels.tolist() == [0, 1, 2, 9, 0]
    assert not task.mirror


def test_missing_and_failing_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import URLError

    from torchvision.datasets import CIFAR10

    fails("'cifar10'.*pass --download .* or --root", "cifar10")

    def offline(self: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(CIFAR10, "download", offline)
    fails("cannot download 'cifar10'.*no route", "cifar10", download=True)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            "<urlopen error [Errno -2] Name or service not known>",
            r"no connection \(Name or service not known\)",
        ),
        ("HTTP Error 404: Not Found", r"the server answers 404 \(Not Found\)"),
        ("the file is corrupted", "the file is corrupted"),
    ],
)
def test_the_cause_of_a_failed_download_is_said(
    monkeypatch: pytest.MonkeyPatch, data_home: None, told: str, said: str
) -> None:
    from torchvision.datasets import MNIST

    def failing(self: object) -> None:  # as torchvision words it when every mirror has failed
        raise RuntimeError(f"Error downloading train.gz:\nTried https://a.b/train.gz, got:\n{told}\n")

    monkeypatch.setattr(MNIST, "download", failing)
    fails(f"cannot download 'mnist'.*: {said}", "mnist", download=True)
