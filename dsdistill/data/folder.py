"""Read the user's own pictures: ``folder:PATH`` with a folder per class."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch

from dsdistill.data.config import DataConfig, Split
from dsdistill.data.convert import stratified
from dsdistill.data.decode import Listing, decode, survey
from dsdistill.data.pictures import EXTENSIONS
from dsdistill.data.real import RealDataset
from dsdistill.data.reporter import Reporter
from dsdistill.errors import UserError
from dsdistill.files import expanded


def _pictures(folder: Path) -> list[Path]:
    paths = (
        Path(parent, file)
        for parent, _, files in os.walk(folder, followlinks=True)
        for file in files
        if not file.startswith(".") and Path(file).suffix.lower() in EXTENSIONS
    )
    return sorted(paths)


def _class_folders(folder: Path) -> list[str]:
    return sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def list_classes(folder: Path, name: str, split: Split, classes: list[str] | None = None) -> Listing:
    """List ``folder/<class>/**/<picture>``: every class folder in sorted order, or only ``classes``.

    Raises:
        UserError: no class folders, a class without pictures, or a single class.
    """
    classes = _class_folders(folder) if classes is None else classes
    if not classes:
        raise UserError(f"{folder} holds no class folders; arrange it as {folder.name}/CLASS/picture.png")
    if len(classes) == 1:
        raise UserError(f"{folder} holds one class only ({classes[0]!r}); classification needs two or more")
    per_class = [_pictures(folder / class_name) for class_name in classes]
    for class_name, paths in zip(classes, per_class, strict=True):
        if not paths:
            raise UserError(
                f"the class folder {folder / class_name} holds no pictures ({' '.join(sorted(EXTENSIONS))}); "
                "add some or remove the folder"
            )
    sizes = torch.tensor([len(paths) for paths in per_class])
    labels = torch.arange(len(classes)).repeat_interleave(sizes)
    return Listing(name, split, tuple(path for paths in per_class for path in paths), labels, tuple(classes))


def _held_out(whole: Listing, fraction: float, split: Split) -> Listing:
    positions = stratified(whole.labels, fraction, whole.classes)[split]
    paths = tuple(whole.paths[i] for i in positions.tolist())
    return replace(whole, split=split, paths=paths, labels=whole.labels[positions])


def listings(config: DataConfig) -> dict[Split, Listing]:
    """Find the train and test files of ``folder:PATH``.

    PATH holds ``train/`` and ``test/`` (or ``val/``, used as test), each with a folder per class; or the
    class folders themselves, or only a ``train/``, of which ``test_fraction`` is held out.

    Raises:
        UserError: a folder is missing or empty, or train and test name different classes.
    """
    folder = expanded(config.name.partition(":")[2])
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}; write folder:PATH with a folder of class folders")
    train, tests = folder / "train", [folder / name for name in ("test", "val") if (folder / name).is_dir()]
    if not train.is_dir():
        if tests:
            raise UserError(f"{folder} has {tests[0].name}/ but no train/; add it")
        train, tests = folder, []
    whole = list_classes(train, config.name, "train")
    if not tests:
        return {split: _held_out(whole, config.test_fraction, split) for split in ("train", "test")}
    test = list_classes(tests[0], config.name, "test")
    odd = sorted(set(whole.classes) ^ set(test.classes))
    if odd:
        raise UserError(f"{train} and {tests[0]} hold different classes: {odd[0]!r} is in one of them only")
    return {"train": whole, "test": test}


def read(config: DataConfig, split: Split, reporter: Reporter) -> RealDataset:
    """Read one split; unless configured, size and channels are inferred from the train split."""
    splits = listings(config)
    if config.size and config.channels:
        return decode(splits[split], config.size, config.channels, reporter)
    train = survey(splits["train"], reporter.progress)
    return decode(splits[split], config.size or train.size, config.channels or train.channels, reporter)
