"""Read Tiny ImageNet, ImageNet and its ten-class subsets from their own layouts on disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from dsdistill.data.config import DataConfig, Split
from dsdistill.data.constants import SUBSETS, subset_wnids
from dsdistill.data.decode import decode
from dsdistill.data.listing import Listing, list_classes
from dsdistill.data.pictures import Decoding
from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError
from dsdistill.files import read_text, reason
from dsdistill.runtime.callbacks import Callback


def _lines(path: Path) -> list[list[str]]:
    """Return a file's non-empty lines, split at tabs."""
    try:
        return [line.split("\t") for line in read_text(path).splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({reason(error)}); unpack the data set again") from error


def _names(wnids: list[str], words: Path) -> tuple[str, ...]:
    """Name each class by its first synonym in words.txt, or by all if two classes share the first."""
    names = {row[0]: row[1] for row in _lines(words) if len(row) > 1}
    full = [names.get(wnid, wnid).strip() for wnid in wnids]
    first = Counter(name.split(",")[0] for name in full)
    return tuple(name.split(",")[0] if first[name.split(",")[0]] == 1 else name for name in full)


def read_tiny(config: DataConfig, split: Split, observer: Callback) -> RealDataset:
    """Read Tiny ImageNet as distributed; classes in sorted WordNet order, the val images are test."""
    homes = [config.folder, *(config.folder / name for name in ("tiny-imagenet-200", "tiny-imagenet"))]
    home = next((home for home in homes if (home / "wnids.txt").is_file()), None)
    if home is None:
        raise config.missing("tiny-imagenet-200/wnids.txt was")
    wnids = sorted(row[0].strip() for row in _lines(home / "wnids.txt"))
    classes = _names(wnids, home / "words.txt")
    if split == "train":
        listing = list_classes(home / "train", config.name, split, wnids, observer.on_read)
    else:
        rows = _lines(home / "val" / "val_annotations.txt")
        label_of = {wnid: label for label, wnid in enumerate(wnids)}
        try:
            labels = torch.tensor([label_of[row[1]] for row in rows])
        except (KeyError, IndexError) as error:
            raise UserError(f"{home}/val/val_annotations.txt does not fit wnids.txt ({error})") from error
        paths = tuple(home / "val" / "images" / row[0] for row in rows)
        listing = Listing(config.name, split, paths, labels, classes)
    return decode(replace(listing, classes=classes, notices=()), Decoding.of(config, 64, 3), observer)


def read_ilsvrc(config: DataConfig, split: Split, observer: Callback) -> RealDataset:
    """Read ImageNet (by default 64 pixels) or a ten-class subset (128) from train/WNID and val/WNID.

    ``val`` is the test split. The folders of a subset suffice for that subset.
    """
    from torchvision.models import ResNet18_Weights

    folder = config.folder / ("train" if split == "train" else "val")
    if not folder.is_dir():
        raise config.missing(f"the folder {folder.name}/ was")
    names: list[str] = ResNet18_Weights.DEFAULT.meta["categories"]
    if config.name in SUBSETS:
        indices, wnids = list(SUBSETS[config.name]), subset_wnids(config.name)
    else:
        wnids = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        indices = list(range(len(names)))
        if len(wnids) != len(names):
            raise UserError(f"{folder} holds {len(wnids)} class folders, not ImageNet's {len(names)}")
    absent = [wnid for wnid in wnids if not (folder / wnid).is_dir()]
    if absent:
        raise config.missing(f"the class folder {folder.name}/{absent[0]} was")
    listing = replace(
        list_classes(folder, config.name, split, wnids, observer.on_read),
        classes=tuple(names[index] for index in indices),
        notices=(),
    )
    if split == "test" and not all(path.name.startswith("ILSVRC2012_val_") for path in listing.paths):
        observer.on_notice(
            f"{folder} does not hold ILSVRC2012's validation images alone (fast.ai's Imagenette is split "
            "otherwise): accuracies do not compare with published ones"
        )
    return decode(listing, Decoding.of(config, 128 if config.name in SUBSETS else 64, 3), observer)
