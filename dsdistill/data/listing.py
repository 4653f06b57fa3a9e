"""List the picture files of a folder of class folders."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from dsdistill.config.unlabelled import UNLABELLED
from dsdistill.data import file_index
from dsdistill.data.config import Split
from dsdistill.data.file_index import Contents, IndexedPaths, State, indexed, keep, now, recalled, state_of
from dsdistill.data.pictures import suffixes
from dsdistill.errors import UserError
from dsdistill.files import reason
from dsdistill.runtime.notice import Progress, silent

_NOT_DATA = {
    *("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__"),
}
"""Folders that systems make; hidden ones are passed over too."""
_NOT_COUNTED = {"thumbs", "ehthumbs", "desktop", "readme", "license", "licence"}
"""Files that nobody takes for pictures, without their suffixes: they are passed over in silence."""
_COMMON = 5
_MANY_CLASSES = 100

Identity = tuple[int, int]
"""Device and inode of a file or folder, whatever links lead to it."""


@dataclass(frozen=True, eq=False)
class Listing:
    """The files of one split, before any is opened.

    Attributes:
        name: of the data set, for sentences.
        paths: of the pictures; of many with the state in which each was found.
        labels: int64 [N].
        notices: what its user should know about how they were found.
    """

    name: str
    split: Split
    paths: Sequence[Path]
    labels: Tensor
    classes: tuple[str, ...]
    notices: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Hash of classes, labels and paths, and of each file's size, times and inode.

        An edited or replaced file makes a different list, even if its size and modification time are kept.
        Of many files it is as `file_index` found them.
        """
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        digest.update(self.labels.numpy().astype("<i8").tobytes())
        known = self.paths if isinstance(self.paths, IndexedPaths) else indexed(self.paths)
        for line in known.lines():
            digest.update(line)
        return digest.hexdigest()

    def part(self, split: Split, positions: Tensor) -> Listing:
        """List the files at some positions, int64 [n], as a split; the notices stay with train."""
        paths: Sequence[Path] = (
            self.paths.part(positions)
            if isinstance(self.paths, IndexedPaths)
            else tuple(self.paths[place] for place in positions.tolist())
        )
        notices = self.notices if split == "train" else ()
        return replace(self, split=split, paths=paths, labels=self.labels[positions], notices=notices)


def class_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder in sorted order, without hidden ones and a system's own.

    Raises:
        UserError: the folder cannot be read.
    """
    return sorted(entry.name for entry in _entries(folder) if _is_folder(entry))


def identity(folder: Path) -> Identity:
    """Return which real folder a path leads to.

    Raises:
        UserError: it cannot be read.
    """
    try:
        stat = folder.stat()
    except OSError as error:
        raise UserError(f"cannot read the folder {folder} ({reason(error)})") from error
    return stat.st_dev, stat.st_ino


def list_classes(
    folder: Path,
    name: str,
    split: Split,
    classes: Sequence[str] | None = None,
    progress: Progress = silent,
) -> Listing:
    """List ``folder/<class>/**/<picture>``: every class folder in sorted order, or only ``classes``.

    Links to pictures and folders are followed, but each real folder is read once in a class. The notices
    count what is passed over. The list of many files is kept for later runs.

    Args:
        folder: of class folders.
        name, split: of the listing.
        classes: the folders to list; default all.
        progress: hears of classes that are listed, and of many files that are looked at.

    Raises:
        UserError: no class folders, a class without pictures, or a single class; a folder cannot be read.
    """
    contents = recalled(folder, classes) or _contents(folder, f"{name}: {{}} {split}", classes, progress)
    labels = torch.arange(len(contents.classes)).repeat_interleave(torch.tensor(contents.counts))
    notices = (f"{name} ({split}): {contents.passed_over}",) if contents.passed_over else ()
    return Listing(name, split, contents.paths, labels, contents.classes, notices)


def _contents(folder: Path, what: str, asked: Sequence[str] | None, progress: Progress) -> Contents:
    """Look into a folder of class folders, and keep the list of many files.

    Args:
        what: the name of the work, with a place for its verb.
        asked: the classes to list; None for all.

    Raises:
        UserError: as `list_classes`.
    """
    since, stray, classes = now(), 0, asked
    if classes is None:
        classes = class_folders(folder)
        stray = sum(_is_stray_picture(entry) for entry in _entries(folder))
    _check_classes(folder, classes)
    per_class: list[list[Path]] = []
    passed_over: Counter[str] = Counter()
    links = 0
    outside = frozenset(map(identity, (folder.resolve(), *folder.resolve().parents)))
    states = {os.path.abspath(folder): state_of(folder)}
    for number, class_name in enumerate(classes):
        if len(classes) >= _MANY_CLASSES:
            progress(what.format("listing the classes of"), number + 1, len(classes))
        walk = _Walk(outside)
        per_class.append(walk.pictures(folder / class_name))
        passed_over += walk.passed_over
        links += walk.links
        states |= walk.states
    paths: Sequence[Path] = tuple(path for paths in per_class for path in paths)
    remark, counts = _passed_over(passed_over, links, stray), tuple(map(len, per_class))
    if len(paths) < file_index.MANY:
        return Contents(tuple(classes), paths, counts, remark)
    paths = indexed(paths, what.format("looking at the files of"), progress)
    contents = Contents(tuple(classes), paths, counts, remark)
    keep(folder, asked, contents, states, since)
    return contents


def holds_pictures(folder: Path) -> bool:
    """Whether pictures lie in a folder itself, beside any folders in it.

    Raises:
        UserError: the folder cannot be read.
    """
    return any(map(_is_stray_picture, _entries(folder)))


def list_pictures(folder: Path, name: str) -> Listing:
    """List ``folder/<picture>``: pictures without labels.

    Raises:
        UserError: there are none, or the folder cannot be read.
    """
    walk = _Walk(frozenset(map(identity, folder.resolve().parents)))
    paths = tuple(walk.pictures(folder))
    remark = _passed_over(walk.passed_over, walk.links, 0)
    labels = torch.zeros(len(paths), dtype=torch.int64)
    return Listing(name, "train", paths, labels, UNLABELLED, (f"{name}: {remark}",) if remark else ())


def _check_classes(folder: Path, classes: Sequence[str]) -> None:
    """Raise a UserError unless there are several classes, in folders of their own."""
    if not classes:
        raise UserError(f"{folder} holds no class folders; arrange it as {folder.name}/CLASS/picture.png")
    if len(classes) == 1:
        inner = folder / classes[0]
        hint = f"; if the classes lie in {inner}, name that folder" if class_folders(inner) else ""
        raise UserError(
            f"{folder} holds one class only ({classes[0]!r}); classification needs two or more{hint}"
        )
    owner: dict[Identity, str] = {}
    for name in classes:
        other = owner.setdefault(identity(folder / name), name)
        if other != name:
            raise UserError(f"the classes {other!r} and {name!r} of {folder} are one folder; remove a link")


class _Walk:
    """Finds the pictures of one class, and counts what else lies among them."""

    def __init__(self, outside: Collection[Identity]) -> None:
        """Take the folders that are not to be entered: those that the class lies in."""
        self._seen = set(outside)
        self.passed_over: Counter[str] = Counter()
        self.links = 0
        self.states: dict[str, State] = {}

    def pictures(self, folder: Path) -> list[Path]:
        """Return the paths of a class's pictures, sorted.

        Raises:
            UserError: there are none, or a folder cannot be read.
        """
        paths: list[str] = []
        folders, links = [folder], list[Path]()
        while folders or links:
            # Links come last: what also lies in the class itself has the path there.
            here = folders.pop() if folders else links.pop(0)
            if (real := identity(here)) in self._seen:
                self.links += 1
                continue
            self._seen.add(real)
            self.states[os.path.abspath(here)] = state_of(here)
            folder_links: list[Path] = []
            for entry in _entries(here):
                if _is_folder(entry):
                    (folder_links if entry.is_symlink() else folders).append(here / entry.name)
                elif self._takes(entry):
                    paths.append(entry.path)
            links += sorted(folder_links)
        if not paths:
            remark = _passed_over(self.passed_over, self.links, 0)
            raise UserError(
                f"the class folder {folder} holds no pictures{f' ({remark})' if remark else ''}; "
                "add some or remove the folder"
            )
        return [Path(path) for path in sorted(paths, key=lambda path: os.path.normcase(path).split(os.sep))]

    def _takes(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry that is no folder is a picture; if not, count it."""
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() in suffixes():
            # A link that leads nowhere is taken: to open it says so, and a picture that is lost is no trifle.
            if _is_file(entry) or not os.path.exists(entry.path):
                return True
            self.passed_over["pipe or device"] += 1
        elif stem.lower() not in _NOT_COUNTED:
            readable = 1 < len(suffix) < 10 and suffix[1:].isascii() and suffix[1:].isalnum()
            self.passed_over[suffix.lower() if readable else "of another kind"] += 1
        return False


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what lies in a folder but hidden entries and a system's own.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name not in _NOT_DATA:
                    yield entry
    except OSError as error:
        raise UserError(f"cannot read the folder {folder} ({reason(error)})") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _is_stray_picture(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in suffixes() and not _is_folder(entry)


def _passed_over(kinds: Counter[str], links: int, stray: int) -> str:
    """Count what is not read in one clause; empty if all is.

    >>> _passed_over(Counter({".txt": 2, ".docx": 1}), 0, 0)
    '3 files skipped: 2 .txt, 1 .docx'
    """
    parts = []
    if total := kinds.total():
        ranked = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
        amounts = [f"{count} {kind}" for kind, count in ranked[:_COMMON]]
        if rest := total - sum(count for _, count in ranked[:_COMMON]):
            amounts.append(f"{rest} of further kinds")
        parts.append(f"{_plural(total, 'file')} skipped: {', '.join(amounts)}")
    if links:
        parts.append(f"{_plural(links, 'link')} not followed, to folders that are read anyway")
    if stray:
        parts.append(f"{_plural(stray, 'picture')} beside the class folders left out")
    return "; ".join(parts)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
