"""Real data: every source read from a tiny copy of its layout, or from the real thing where it is at hand."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from dsdistill.data import decode as decode_module
from dsdistill.data import packaged
from dsdistill.data.catalog import DataConfig, load, names
from dsdistill.data.convert import fit, stratified, with_channels
from dsdistill.data.facts import _WNIDS, SUBSETS, subset_wnids
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSDISTILL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "DEBIAN_FASHION", tmp_path / "not installed")


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: NDArray[Any], mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)


def class_folders(
    root: Path, per_class: int = 6, size: int = 8, classes: tuple[str, ...] = ("cat", "dog")
) -> Path:
    for k, name in enumerate(classes):
        for i in range(per_class):
            save(root / name / f"{i}.png", pixels(size, size, 3, seed=100 * k + i))
    return root


def fails(match: str, name: str, split: str = "train", **options: Any) -> None:
    with pytest.raises(UserError, match=match) as caught:
        load(DataConfig(name=name, **options), split)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


# --- RealDataset --------------------------------------------------------------------------------------------


def small(labels: tuple[int, ...] = (1, 0, 1, 2), classes: tuple[str, ...] = ("a", "b", "c")) -> RealDataset:
    images = torch.from_numpy(pixels(len(labels), 3, 4, 4))
    return RealDataset("small", "train", images, torch.tensor(labels), classes)


def test_dataset_indexes_by_class_and_scales_to_unit() -> None:
    data = small()
    assert data.counts.tolist() == [1, 2, 1]
    assert [data.indices_of(k).tolist() for k in range(3)] == [[1], [0, 2], [3]]
    unit = data.unit(data.indices_of(1))
    assert torch.equal(unit, data.images[[0, 2]].float() / 255)
    assert torch.equal(data.unit(slice(1, 3)), data.images[1:3].float() / 255)


def test_fingerprint_depends_on_pixels_labels_class_order_and_nothing_else() -> None:
    data = small()
    laid_out_otherwise = data.images.contiguous(memory_format=torch.channels_last)
    assert (
        RealDataset("x", "test", laid_out_otherwise, data.labels, data.classes).fingerprint
        == data.fingerprint
    )
    changed = data.images.clone()
    changed[3, 2, 3, 3] ^= 1
    others = [
        RealDataset("small", "train", changed, data.labels, data.classes),
        RealDataset("small", "train", data.images.view(4, 3, 2, 8), data.labels, data.classes),
        small(labels=(1, 0, 2, 1)),
        small(classes=("a", "c", "b")),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_dataset_refuses_other_types() -> None:
    with pytest.raises(ValueError, match="uint8"):
        RealDataset("x", "train", torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(ValueError, match="labels"):
        RealDataset("x", "train", torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]), ("a", "b"))


# --- packaged data sets -------------------------------------------------------------------------------------


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


def test_task_constants_come_from_train_whichever_split_is_read() -> None:
    task, train = load(DataConfig(name="digits"), "train")
    for split in ("train", "test"):
        state = load(DataConfig(name="digits"), split)[0].preprocess.state()  # type: ignore[arg-type]
        assert torch.equal(state["mean"], Standardise.fit(train.images).mean)
    unit = train.unit(slice(None))
    x = task.preprocess(unit)
    assert abs(float(x.mean())) < 1e-5
    assert abs(float(x.std(correction=0)) - 1) < 1e-5


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = header + array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_mnist(folder: Path, ending: str = ".gz") -> None:
    for prefix, n in (("train", 20), ("t10k", 10)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte{ending}", pixels(n, 28, 28, seed=n))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{ending}", np.arange(n, dtype=np.uint8) % 10)


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


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[:-100])
    fails("train-images.*not a whole IDX file", "mnist", root=tmp_path)
    write_idx(images, pixels(3, 28, 28))
    fails("do not fit each other", "mnist", root=tmp_path)


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


# --- ImageNets ----------------------------------------------------------------------------------------------


def test_tiny_imagenet(tmp_path: Path) -> None:
    home = tmp_path / "tiny-imagenet-200"
    wnids = ["n03", "n01", "n02"]
    for k, wnid in enumerate(wnids):
        save(
            home / "train" / wnid / "images" / f"{wnid}_0.JPEG", np.full((64, 64, 3), 80 * k, dtype=np.uint8)
        )
    save(
        home / "train" / "n01" / "images" / "n01_1.JPEG", np.full((64, 64), 9, dtype=np.uint8)
    )  # some are grey
    for i in range(2):
        save(home / "val" / "images" / f"val_{i}.JPEG", np.full((64, 64, 3), 100 + i, dtype=np.uint8))
    (home / "val" / "val_annotations.txt").write_text(
        "val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n"
    )
    (home / "wnids.txt").write_text("\n".join(wnids))
    (home / "words.txt").write_text(
        "n00\tthing\nn01\tcrane, bird\nn02\tgoldfish, Carassius\nn03\tcrane, machine\n"
    )
    told: list[str] = []
    task, train = load(DataConfig(name="tiny-imagenet", root=tmp_path), "train", told.append)
    assert task.classes == ("crane, bird", "goldfish", "crane, machine")
    assert task.shape == (3, 64, 64)
    assert train.labels.tolist() == [0, 0, 1, 2]
    assert train.images[:, 1, 0, 0].tolist() == [80, 9, 160, 0]
    assert told == ["tiny-imagenet (train): 4 images, 1 greyscale repeated to 3 channels"]
    _, test = load(DataConfig(name="tiny-imagenet", root=home), "test")
    assert test.labels.tolist() == [1, 0]
    assert test.images[:, 0, 5, 5].tolist() == [100, 101]
    assert task.preprocess.state()["std"].tolist() == pytest.approx([0.229, 0.224, 0.225])
    (home / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn99\n")
    fails("does not fit wnids.txt", "tiny-imagenet", "test", root=tmp_path)
    fails("wnids.txt was not found", "tiny-imagenet", root=tmp_path / "elsewhere")


def test_subset_ids_are_ilsvrcs() -> None:
    timm_data = pytest.importorskip("timm.data")
    wnids = timm_data.ImageNetInfo("imagenet-1k").label_names()
    assert {index: wnids[index] for index in _WNIDS} == _WNIDS
    assert all(len(set(indices)) == 10 for indices in SUBSETS.values())


def test_imagenet_subset_takes_its_labels_from_the_published_order(tmp_path: Path) -> None:
    for level, wnid in enumerate(subset_wnids("imagewoof")):
        for part in ("train", "val"):
            save(tmp_path / part / wnid / "a.JPEG", np.full((50, 70, 3), 20 * level, dtype=np.uint8))
    save(
        tmp_path / "train" / "n00000000" / "another.JPEG", pixels(9, 9, 3)
    )  # not of the subset: never opened
    told: list[str] = []
    task, train = load(DataConfig(name="imagewoof", root=tmp_path), "train", told.append)
    assert train.images.shape == (10, 3, 128, 128)
    assert train.images[:, 0, 64, 64].tolist() == [20 * level for level in range(10)]
    assert task.classes[:2] == ("Australian terrier", "Border terrier")
    assert "10 not 128x128 resized" in told[0]
    assert load(DataConfig(name="imagewoof", root=tmp_path, size=32), "test")[1].images.shape[2] == 32
    fails("train/n01440764 was not found", "imagenette", root=tmp_path)
    fails("11 class folders, not ImageNet's 1000", "imagenet", root=tmp_path)
    fails("folder val/ was not found", "imagenet", "test", root=tmp_path / "x")


# --- folders ------------------------------------------------------------------------------------------------


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


def test_long_decoding_shows_progress_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what makes rich take the captured stream for a terminal
    monkeypatch.setenv("TERM", "xterm")
    load(DataConfig(name=f"folder:{class_folders(tmp_path / 'few')}"), "train")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(decode_module, "SHOW_PROGRESS_FROM", 1)
    load(DataConfig(name=f"folder:{class_folders(tmp_path / 'many')}"), "train")
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "decoding" in seen.err


def _error(config: DataConfig, split: str) -> str:
    try:
        load(config, split)  # type: ignore[arg-type]
    except UserError as error:
        return str(error)
    return ""


# --- npz ----------------------------------------------------------------------------------------------------


def npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return f"npz:{path}"


def test_npz_with_splits_in_every_layout(tmp_path: Path) -> None:
    channels_last, y = pixels(6, 8, 8, 3), np.array([0, 1, 2] * 2)
    expected = torch.from_numpy(channels_last).permute(0, 3, 1, 2)
    layouts = {
        "hwc": channels_last,
        "chw": channels_last.transpose(0, 3, 1, 2),
        "float": (channels_last / 255).astype(np.float32),
    }
    for name, x in layouts.items():
        file = npz(tmp_path / f"{name}.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3, None])
        task, train = load(DataConfig(name=file), "train")
        _, test = load(DataConfig(name=file), "test")
        assert torch.equal(train.images, expected)
        assert torch.equal(test.images, expected[:3])
        assert test.labels.tolist() == [0, 1, 2]
        assert task.classes == ("0", "1", "2")


def test_npz_without_splits(tmp_path: Path) -> None:
    file = npz(
        tmp_path / "a.npz",
        images=pixels(20, 9, 7),
        labels=np.arange(20) % 2,
        classes=np.array(["hat", "shoe"]),
    )
    told: list[str] = []
    task, train = load(DataConfig(name=file, test_fraction=0.1), "train", told.append)
    assert (task.classes, task.shape) == (("hat", "shoe"), (1, 7, 7))
    assert train.counts.tolist() == [9, 9]
    assert told == [f"{file} (train): 18 images, resized from 9x7 to 7x7 (bilinear, antialiased)"]
    assert load(DataConfig(name=file, test_fraction=0.1), "test")[1].counts.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "holds the keys images; it needs"),
        ({"images": pixels(4, 8)}, r"shape \[4, 8\]"),
        ({"images": pixels(4, 8, 8, 5)}, "1 or 3 channels"),
        ({"images": pixels(4, 8, 8).astype(np.int32)}, "is int32"),
        ({"images": pixels(4, 8, 8) / 100}, r"outside \[0, 1\]"),
        ({"images": np.full((4, 8, 8), np.nan)}, r"outside \[0, 1\]"),
        ({"labels": np.array([0, 1, 0])}, r"shape \[3\] for 4 images"),
        ({"labels": np.array([0.0, 1, 0, 1])}, "save labels as integers"),
        ({"labels": np.array([0, -1, 0, 1])}, "label -1, out of range"),
        ({"labels": np.array([0, 0, 2, 2])}, "no image of label 1"),
        ({"labels": np.array([0, 0, 0, 0])}, "one class only"),
        ({"classes": np.array(["only"])}, "label 1, out of range 0..0"),
        ({"classes": np.array([1, 2])}, "list of class names"),
        ({"classes": np.array([None, "x"], dtype=object)}, "as an npz file of plain arrays"),
    ],
)
def test_npz_errors(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    arrays = {"images": pixels(4, 8, 8), "labels": np.array([0, 1, 0, 1]), **change}
    fails(
        message, npz(tmp_path / "a.npz", **{key: value for key, value in arrays.items() if value is not None})
    )


def test_npz_files_that_are_none(tmp_path: Path) -> None:
    fails("no such file", f"npz:{tmp_path / 'nowhere.npz'}")
    (tmp_path / "text.npz").write_text("hello")
    fails("not an npz file", f"npz:{tmp_path / 'text.npz'}")
    np.save(tmp_path / "one.npy", pixels(2, 2))
    fails("not an npz file", f"npz:{tmp_path / 'one.npy'}")
    x, y = pixels(4, 8, 8), np.array([0, 1, 0, 1])
    damaged = npz(tmp_path / "damaged.npz", images=x, labels=y)
    raw = bytearray((tmp_path / "damaged.npz").read_bytes())
    raw[200] ^= 255  # a pixel: the archive's checksum notices
    (tmp_path / "damaged.npz").write_bytes(raw)
    fails("as an npz file of plain arrays", damaged)
    odd = npz(tmp_path / "odd.npz", x_train=x, y_train=y, x_test=pixels(4, 9, 9), y_test=y)
    fails("different shapes", odd, "test")
    beyond = npz(tmp_path / "beyond.npz", x_train=x, y_train=y, x_test=x, y_test=y + 1)
    fails("y_test holds the label 2, out of range 0..1", beyond, "test")


# --- conversion and whitening -------------------------------------------------------------------------------


def test_arrays_are_converted_as_pillow_converts_files() -> None:
    rgb = pixels(3, 20, 28, 3)
    tensor = torch.from_numpy(rgb).permute(0, 3, 1, 2)
    luma = [np.asarray(Image.fromarray(image).convert("L")) for image in rgb]
    assert np.array_equal(with_channels(tensor, 1)[:, 0].numpy(), np.stack(luma))
    for size in (8, 40):
        resized = [
            np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
            for image in rgb
        ]
        difference = fit(tensor, size, 3, chunk=2).int() - torch.from_numpy(np.stack(resized)).permute(
            0, 3, 1, 2
        )
        assert int(difference.abs().max()) <= 1


def test_catalogue_data_can_be_resized_and_coloured() -> None:
    told: list[str] = []
    task, train = load(DataConfig(name="digits", size=16, channels=3), "train", told.append)
    assert task.shape == tuple(train.images.shape[1:]) == (3, 16, 16)
    assert told == [
        "digits (train): 1347 images, resized from 8x8 to 16x16 (bilinear, antialiased), "
        "greyscale repeated to 3 channels"
    ]


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
    (cached,) = (tmp_path / "cache").rglob("*.safetensors")
    cached.write_bytes(cached.read_bytes()[:50])
    assert torch.equal(load(config, "test")[0].preprocess(train.unit(slice(5))), expected)
    fails("too large", "digits", zca=True, size=128)


# --- names and options --------------------------------------------------------------------------------------


def test_names_and_unknown_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"digits", "cifar100", "imagemeow", "folder:PATH", "npz:PATH"} <= names().keys()
    fails("did you mean 'cifar10'", "cifer10")
    fails("did you mean 'folder:PATH'", "folder")
    fails("unknown data set 'cifar10:x'", "cifar10:x")
    fails(f"write it as folder:{tmp_path}", str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_fraction": 0.0}, "between 0 and 1, not 0"),
        ({"test_fraction": 1.5}, "between 0 and 1, not 1.5"),
        ({"test_fraction": float("nan")}, "between 0 and 1"),
        ({"size": 0}, "at least 1"),
        ({"channels": 2}, "1 .grey. or 3"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataConfig(name="digits", **options)
