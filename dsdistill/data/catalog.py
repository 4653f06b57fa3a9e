"""The catalogue: load real data by name or path."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from dsdistill.data import folder, imagenet, npz, packaged
from dsdistill.data.cache import cache_folder, caching
from dsdistill.data.config import DataConfig, Split
from dsdistill.data.constants import CONSTANTS, IMAGENET_CONSTANTS, SUBSETS
from dsdistill.data.preprocess import ZCA, ZCA_EPS, Preprocess, Standardise, from_state
from dsdistill.data.real import RealDataset, Task
from dsdistill.data.reporter import Reporter
from dsdistill.errors import UserError, unknown
from dsdistill.files import read
from dsdistill.runtime.notice import Notify, Progress, silent

__all__ = ["DataConfig", "check", "load", "names"]


@dataclass(frozen=True)
class _Entry:
    about: str
    read: Callable[[DataConfig, Split, Reporter], RealDataset]
    mirror: bool = True


_CATALOG: dict[str, _Entry] = {
    "digits": _Entry("8x8 grey handwritten digits that ship with scikit-learn", packaged.read_digits, False),
    "mnist": _Entry("28x28 grey handwritten digits", packaged.read_mnist_like, False),
    "fashion-mnist": _Entry("28x28 grey clothes", packaged.read_mnist_like),
    "kmnist": _Entry("28x28 grey cursive Japanese characters", packaged.read_mnist_like, False),
    "svhn": _Entry("32x32 colour house numbers", packaged.read_svhn, False),
    "cifar10": _Entry("32x32 colour photographs, 10 classes", packaged.read_cifar),
    "cifar100": _Entry("32x32 colour photographs, 100 classes", packaged.read_cifar),
    "tiny-imagenet": _Entry("64x64 colour photographs, 200 classes", imagenet.read_tiny),
    "imagenet": _Entry("ImageNet's 1000 classes at 64x64", imagenet.read_ilsvrc),
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
    "folder": _Entry("your pictures: a folder per class, or train/ and test/ of them", folder.read),
    "npz": _Entry("your arrays: images and labels, or x_train, y_train, x_test, y_test", npz.read),
}
_OWN = ("folder", "npz")


def names() -> dict[str, str]:
    """Map every name of a data set to a one-line description."""
    return {f"{name}:PATH" if name in _OWN else name: entry.about for name, entry in _CATALOG.items()}


def check(name: str) -> None:
    """Raise a UserError, with the nearest name, unless ``name`` is the name of a data set."""
    _entry(name)


def _entry(name: str) -> _Entry:
    kind, colon, path = name.partition(":")
    if kind in _OWN and path:
        return _CATALOG[kind]
    if kind in _CATALOG and kind not in _OWN and not colon:
        return _CATALOG[kind]
    for own, exists in (("folder", Path.is_dir), ("npz", Path.is_file)):
        if exists(Path(name).expanduser()):
            raise UserError(f"{name!r} is a path; write it as {own}:{name}")
    raise unknown("data set", name, names())


def _constants(config: DataConfig, channels: int) -> Standardise | None:
    """Return the published normalisation, if there is one and the channels are the native ones."""
    imagenets = {"tiny-imagenet", "imagenet", *SUBSETS}
    constants = IMAGENET_CONSTANTS if config.name in imagenets else CONSTANTS.get(config.name)
    return Standardise.of(*constants) if constants and len(constants[0]) == channels else None


def _zca(train: RealDataset) -> Preprocess:
    """Fit ZCA on the train split, which takes long, or read it from the cache."""
    ZCA.check(train.images[0].numel())
    key = hashlib.sha256(f"{train.fingerprint} {ZCA_EPS}".encode()).hexdigest()[:32]
    cached = cache_folder() / "zca" / f"{key}.safetensors"
    try:
        state = load_tensors(read(cached))
        if state.keys() == {"mean", "matrix", "eps"} and len(state["mean"]) == train.images[0].numel():
            return from_state("zca", state)
    except (OSError, SafetensorError, TypeError, UserError):
        pass  # absent or damaged: fit again
    fitted = ZCA.fit(train.images)
    with caching(cached) as file:
        file.write(save_tensors(fitted.state()))
    return fitted


def load(
    config: DataConfig, split: Split, notify: Notify = silent, progress: Progress = silent
) -> tuple[Task, RealDataset]:
    """Read one split, and the task whose preprocessing is fitted on the train split.

    Args:
        config: the data set and how to present it.
        split: ``"train"`` or ``"test"``; nothing of the other is returned.
        notify: receives a sentence if images were converted.
        progress: called with (what, done, total) while picture files are read: before the first one and after
            every batch.

    Raises:
        UserError: unknown name, data missing or damaged, one class only, or zca on too large images.
    """
    entry = _entry(config.name)
    data = entry.read(config, split, Reporter(notify, progress))
    channels, size = data.images.shape[1], data.images.shape[2]

    def train() -> RealDataset:
        return data if split == "train" else entry.read(config, "train", Reporter(progress=progress))

    preprocess: Preprocess
    if config.zca:
        preprocess = _zca(train())
    else:
        preprocess = _constants(config, channels) or Standardise.fit(train().images)
    mirror = entry.mirror if config.mirror is None else config.mirror
    return Task(config.name, data.classes, channels, size, preprocess, mirror), data
