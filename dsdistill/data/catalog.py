"""The catalogue: load real data by name or path."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from dsdistill.config.data_names import data_name, gone, is_memory
from dsdistill.data import convert, folder, hf, imagenet, mapped, npz, packaged
from dsdistill.data.cache import recall, store
from dsdistill.data.config import DataConfig, Split
from dsdistill.data.constants import constants_of
from dsdistill.data.memory import InMemory
from dsdistill.data.preprocess import ZCA, ZCA_EPS, Preprocess, Standardise, from_state
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError, unknown
from dsdistill.files import cache_folder, expanded
from dsdistill.runtime.callbacks import Callback
from dsdistill.runtime.notice import Notify

__all__ = ["DataConfig", "check", "load", "names", "opened", "read"]


SILENT = Callback()
"""Hears nothing."""

Read = Callable[[DataConfig, Split, Callback], RealDataset]


@dataclass(frozen=True)
class _Entry:
    about: str
    read: Read
    mirror: bool = True
    classes: int | None = 10
    """None where nobody knows before they are read."""


_CATALOG: dict[str, _Entry] = {
    "digits": _Entry("8x8 grey handwritten digits that ship with scikit-learn", packaged.read_digits, False),
    "mnist": _Entry("28x28 grey handwritten digits", packaged.read_mnist_like, False),
    "fashion-mnist": _Entry("28x28 grey clothes", packaged.read_mnist_like),
    "kmnist": _Entry("28x28 grey cursive Japanese characters", packaged.read_mnist_like, False),
    "svhn": _Entry("32x32 colour house numbers", packaged.read_svhn, False),
    "cifar10": _Entry("32x32 colour photographs, 10 classes", packaged.read_cifar),
    "cifar100": _Entry("32x32 colour photographs, 100 classes", packaged.read_cifar, classes=100),
    "tiny-imagenet": _Entry("64x64 colour photographs, 200 classes", imagenet.read_tiny, classes=200),
    "imagenet": _Entry("ImageNet's 1000 classes at 64x64", imagenet.read_ilsvrc, classes=1000),
    **{
        name: _Entry(f"ten ImageNet classes at 128x128: {about}", imagenet.read_ilsvrc)
        for name, about in {
            "imagenette": "easy to tell apart",
            "imagewoof": "dogs",
            "imagemeow": "cats",
            "imagesquawk": "birds",
            "imagefruit": "fruit",
            "imageyellow": "yellow things",
        }.items()
    },
    "folder": _Entry(
        "your pictures: PATH/CLASS/picture.png, or PATH/train/CLASS and PATH/test/CLASS (or val, valid); "
        "without labels PATH/picture.png",
        folder.read,
        classes=None,
    ),
    "npz": _Entry(
        "your arrays: images and labels, or x_train, y_train, x_test, y_test; without labels images alone",
        npz.read,
        classes=None,
    ),
    "hf": _Entry(
        'a data set of Hugging Face, or hf:NAME:CONFIG (pip install "dsdistill[hf]")',
        hf.read,
        classes=None,
    ),
}
_OWN = {"folder": ("PATH",), "npz": ("PATH",), "hf": ("NAME", "PATH")}
"""What follows the kind of one's own data, and a colon."""
_ABOUT_PATHS = {
    "hf:PATH": "Parquet, WebDataset (.tar) or save_to_disk: a file or folder, written from / ~ or . on",
}


def names() -> dict[str, str]:
    """Map every name of a data set to a one-line description."""
    forms = {
        name: [f"{name}:{place}" for place in _OWN[name]] if name in _OWN else [name] for name in _CATALOG
    }
    return {form: _ABOUT_PATHS.get(form, _CATALOG[name].about) for name in forms for form in forms[name]}


def check(name: str) -> None:
    """Raise a UserError, with the nearest name, unless ``name`` is the name of a data set."""
    _entry(name)


def class_count(name: str) -> int | None:
    """Return the number of classes of a data set; None where nobody knows before it is read.

    Raises:
        UserError: there is no such data set.
    """
    return _entry(name).classes


def _entry(name: str) -> _Entry:
    kind, colon, path = name.partition(":")
    if is_memory(name):
        raise gone(name)
    if kind in _OWN and path:
        return _CATALOG[kind]
    if kind in _CATALOG and kind not in _OWN and not colon:
        return _CATALOG[kind]
    if (location := expanded(name)).is_dir():
        raise UserError(f"{name!r} is a path; write it as folder:{name}")
    if location.is_file():
        written = f"hf:{location.absolute()}" if location.suffix in hf.READERS else f"npz:{name}"
        raise UserError(f"{name!r} is a path; write it as {written}")
    raise unknown("data set", name, names())


def _constants(config: DataConfig, channels: int) -> Standardise | None:
    """Return the published normalisation, if there is one and the channels are the native ones."""
    constants = constants_of(config.name)
    return Standardise.of(*constants) if constants and len(constants[0]) == channels else None


def _zca(train: RealDataset, observer: Callback) -> Preprocess:
    """Fit ZCA on the train split, which takes long, or read it from the cache."""
    ZCA.check(train.images[0].numel())
    name = f"{train.fingerprint} {ZCA_EPS}"
    return _cached(name, "zca", lambda: ZCA.fit(train.images, progress=observer.on_read), observer.on_notice)


def _standardise(train: RealDataset, observer: Callback) -> Preprocess:
    """Fit mean and standard deviation on the train split; of large data they are kept in the cache."""

    if not mapped.is_large(train.images.shape):
        return Standardise.fit(train.images)

    def fit() -> Preprocess:
        return Standardise.fit(train.images, observer.on_read)

    return _cached(train.fingerprint, "standardise", fit, observer.on_notice)


def _cached(name: str, kind: str, fit: Callable[[], Preprocess], notify: Notify) -> Preprocess:
    """Return what is fitted, from the cache if it is there.

    Args:
        name: of what it is fitted on.
        kind: of the preprocessing.
        fit: fits it.
        notify: receives a sentence about a file of the cache that is damaged.

    Raises:
        UserError: the cache cannot be written.
    """
    key = hashlib.sha256(name.encode()).hexdigest()[:32]
    cached = cache_folder() / kind / f"{key}.{'zca' if kind == 'zca' else 'safetensors'}"
    if (stored := recall(cached, notify)) is not None:
        return from_state(kind, load_tensors(stored))
    fitted = fit()
    store(cached, save_tensors(fitted.state()))
    return fitted


def _reader(config: DataConfig, source: InMemory | None) -> tuple[Read, bool]:
    """Return what reads the data, and whether a mirrored image keeps its label.

    Raises:
        UserError: unknown name, another one than that of the data given, or data that were in memory and are
            not given.
    """
    if source is not None:
        if config.name != source.name:
            raise UserError(
                f"dataset= gives {source.name}, and data.name={config.name} names other data; leave one out"
            )
        read: Read = source.read
        keeps = True
    else:
        entry = _entry(config.name)
        read, keeps = entry.read, entry.mirror
    if config.pad:
        read = _padding(read)
    return (_unlabelled(read) if config.unlabelled else read), keeps


def mirrors(name: str) -> bool:
    """Whether a mirrored image of a data set keeps its label; of one's own data nobody says otherwise.

    >>> mirrors("digits"), mirrors("cifar10"), mirrors("folder:pets"), mirrors("memory:pets")
    (False, True, True, True)

    Raises:
        UserError: there is no data set of this name.
    """
    return True if is_memory(name) else _entry(name).mirror


def opened(config: DataConfig, source: InMemory | None = None, fetch: bool = True) -> InMemory | None:
    """Return data that are read several times and decoded once: those given, or those of ``hf:``.

    Args:
        config: the data set.
        source: the data, if the config names such in memory.
        fetch: whether a server may be asked for the data.

    Raises:
        UserError: data of ``hf:`` cannot be opened, or the name lacks which.
    """
    if source is not None or not config.name.startswith("hf:"):
        return source
    check(config.name)
    return hf.opened(config.name, fetch)


class _Reading(Callback):
    """Passes on how far the train split is read, where it is read for its statistics only; no notices."""

    def __init__(self, observer: Callback) -> None:
        self.on_read = observer.on_read  # type: ignore[method-assign]


def read(
    config: DataConfig,
    split: Split,
    observer: Callback = SILENT,
    source: InMemory | None = None,
) -> RealDataset:
    """Read one split, as `load` does."""
    return _reader(config, source)[0](config, split, observer)


def load(
    config: DataConfig,
    split: Split,
    observer: Callback = SILENT,
    source: InMemory | None = None,
) -> tuple[Task, RealDataset]:
    """Read one split, and the task whose preprocessing is fitted on the train split.

    Args:
        config: the data set and how to present it.
        split: ``"train"`` or ``"test"``; nothing of the other is returned.
        observer: its `on_notice` receives a sentence if images were converted, or a file of the cache was
            damaged; its `on_read` is called while images are read one by one: before the first one and after
            every batch.
        source: the data, if the config names such in memory.

    Raises:
        UserError: unknown name, data missing or damaged, one class only, or zca on too large images.
    """
    reads, mirrors = _reader(config, opened(config, source))
    data = _fingerprinted(reads(config, split, observer), observer)
    channels, size = data.images.shape[1], data.images.shape[2]

    quiet = _Reading(observer)

    def train() -> RealDataset:
        return data if split == "train" else _fingerprinted(reads(config, "train", quiet), quiet)

    preprocess: Preprocess
    if config.zca:
        preprocess = _zca(train(), observer)
    else:
        preprocess = _constants(config, channels) or _standardise(train(), observer)
    mirror = mirrors if config.mirror is None else config.mirror
    return Task(data_name(config.name), data.classes, channels, size, preprocess, mirror), data


def _fingerprinted(data: RealDataset, observer: Callback) -> RealDataset:
    """Return data whose fingerprint, which every run asks for, is at hand if to compute it takes long."""
    is_due = mapped.is_large(data.images.shape) and "fingerprint" not in data.__dict__
    return data.fingerprinted(observer.on_read) if is_due else data


def _unlabelled(read: Read) -> Read:
    """Return a function that reads images and leaves their labels out."""
    return lambda config, split, observer: read(config, split, observer).without_labels()


def _padding(read: Read) -> Read:
    """Return a function that reads images at their own size, and reaches that of the options by margins."""

    def padded(config: DataConfig, split: Split, observer: Callback) -> RealDataset:
        data = read(dataclasses.replace(config, size=None, pad=False), split, observer)
        side = config.size or data.images.shape[-1]
        if side < data.images.shape[-1]:
            raise UserError(
                f"{data.name} has images of {data.images.shape[-1]} pixels, which margins cannot bring to "
                f"{side}: pass a larger --size, or leave out data.pad"
            )
        return dataclasses.replace(data, images=convert.padded(data.images, side))

    return padded
