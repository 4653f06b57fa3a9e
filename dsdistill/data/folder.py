"""Read the user's own pictures: ``folder:PATH`` with a folder per class, or pictures without labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dsdistill.data.config import ROLES, DataConfig, Split
from dsdistill.data.convert import stratified
from dsdistill.data.decode import decode, survey
from dsdistill.data.listing import (
    Listing,
    class_folders,
    holds_pictures,
    identity,
    list_classes,
    list_pictures,
)
from dsdistill.data.pictures import Decoding
from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError
from dsdistill.files import expanded
from dsdistill.runtime.callbacks import Callback
from dsdistill.runtime.notice import Progress, silent

_ALSO_CLASSES = ("train", "training", "valid")
"""Names of splits that may be those of classes: a vehicle, or the opposite of invalid."""
_LIKE_A_SPLIT = re.compile(r"(^|[^a-z])(train(ing)?|test(ing)?|val(id(ation)?)?)(sets?|data|[^a-z]|$)")
"""In names such as ``training_set``, ``seg_test`` and ``test1``."""


@dataclass(frozen=True)
class _Layout:
    """Where the splits of a folder lie; without ``test``, a part of ``train`` is held out."""

    train: Path
    test: Path | None
    notices: tuple[str, ...]


def _layout(root: Path) -> _Layout:
    """Find the splits of a folder, by the names of the folders in it.

    A folder is a split if it has the name of one, in any case, and holds folders itself.

    Raises:
        UserError: it is unclear which folders are splits, and which are classes.
    """
    if not root.is_dir():
        raise UserError(f"no such folder: {root}; write folder:PATH with a folder of class folders")
    names = class_folders(root)
    splits: dict[str, list[str]] = {"train": [], "test": [], "val": []}
    flat: list[str] = []
    for name in names:
        if role := ROLES.get(name.casefold()):
            (splits[role] if class_folders(root / name) else flat).append(name)
    if not splits["train"]:
        return _without_splits(root, names, flat, splits["test"] + splits["val"])
    train = _single(root, splits["train"])
    tests = splits["test"] or splits["val"]
    test = _single(root, tests) if tests else None
    if test is not None and identity(root / train) == identity(root / test):
        raise UserError(f"{train} and {test} of {root} are one folder; put other pictures into {test}")
    unused = [name for name in names if name not in (train, test)]
    notices = _notices(train, test, unused)
    return _Layout(root / train, root / test if test else None, notices)


def _single(root: Path, names: Sequence[str]) -> str:
    if len(names) > 1:
        raise UserError(f"{root} holds both {names[0]}/ and {names[1]}/; keep one of them")
    return names[0]


def _notices(train: str, test: str | None, unused: Sequence[str]) -> tuple[str, ...]:
    """Say which folders are used, unless they are ``train`` and ``test`` and no others are there."""
    notices = []
    if test is None:
        notices.append(f"no test split beside {train}/: data.test_fraction of it is held out")
    elif (train, test) != ("train", "test"):
        notices.append(f"{train}/ is the train split and {test}/ the test split")
    if unused:
        notices.append(f"not used: {_listed(unused)}")
    return tuple(notices)


def _without_splits(root: Path, names: Sequence[str], flat: Sequence[str], tests: Sequence[str]) -> _Layout:
    """Take the folders of a folder without a train split as its classes.

    Raises:
        UserError: some are named like splits, and may not be meant as classes.
    """
    trains = [name for name in flat if ROLES[name.casefold()] == "train"]
    if trains and all(_LIKE_A_SPLIT.search(name.casefold()) for name in names):
        folder = root / trains[0]
        raise UserError(f"{folder} holds no class folders; arrange it as {trains[0]}/CLASS/picture.png")
    tests = [*tests, *(name for name in flat if name.casefold() not in _ALSO_CLASSES)]
    if tests:
        raise UserError(
            f"{root} has {tests[0]}/ but no train/; add it, or give {tests[0]}/ another name if it is a class"
        )
    if names and all(_LIKE_A_SPLIT.search(name.casefold()) for name in names):
        raise UserError(
            f"the folders of {root} are named like splits, not classes: {_listed(names)}; "
            "call the splits train/ and test/"
        )
    if flat:
        return _Layout(root, None, (f"taken as classes, as they hold no folders: {_listed(flat)}",))
    return _Layout(root, None, ())


def _listed(names: Sequence[str]) -> str:
    few = ", ".join(f"{name}/" for name in names[:4])
    return few if len(names) <= 4 else f"{few} and {len(names) - 4} more"


def _held_out(whole: Listing, fraction: float, split: Split) -> Listing:
    return whole.part(split, stratified(whole.labels, fraction, whole.classes)[split])


def listings(config: DataConfig, progress: Progress = silent) -> dict[Split, Listing]:
    """Find the train and test files of ``folder:PATH``.

    PATH holds ``train/`` and ``test/`` (or ``val/``, used as test), each with a folder per class; or the
    class folders themselves, or only a ``train/``, of which ``test_fraction`` is held out. Other usual names
    of splits, such as ``Training`` and ``valid``, are recognised. A PATH that holds pictures and no folders
    is data without labels.

    Raises:
        UserError: a folder is missing or empty, or train and test name different classes.
    """
    root = expanded(config.name.partition(":")[2])
    if root.is_dir() and not class_folders(root) and holds_pictures(root):
        whole = list_pictures(root, config.name)
        return {split: _held_out(whole, config.test_fraction, split) for split in ("train", "test")}
    layout = _layout(root)
    whole = list_classes(layout.train, config.name, "train", progress=progress)
    notices = tuple(f"{config.name}: {sentence}" for sentence in layout.notices)
    whole = replace(whole, notices=notices + whole.notices)
    if layout.test is None:
        return {split: _held_out(whole, config.test_fraction, split) for split in ("train", "test")}
    test = list_classes(layout.test, config.name, "test", progress=progress)
    odd = sorted(set(whole.classes) ^ set(test.classes))
    if odd:
        raise UserError(
            f"{layout.train} and {layout.test} hold different classes: {odd[0]!r} is in one of them only"
        )
    return {"train": whole, "test": test}


def read(config: DataConfig, split: Split, observer: Callback) -> RealDataset:
    """Read one split; unless configured, size and channels are inferred from the train split."""
    splits = listings(config, observer.on_read)
    if config.size and config.channels:
        return decode(splits[split], Decoding.of(config, config.size, config.channels), observer)
    train = survey(splits["train"], observer)
    return decode(splits[split], Decoding.of(config, train.size, train.channels), observer)
