"""Claims: which of several machines works on what, in a folder that they share.

A claim is a file that one process alone can create, on network file systems too. Its owner renews it now and
then. One that was not renewed for long is that of a dead owner, and another process goes one generation
further: it creates the file with the next number, which again only one can. So no claim is ever deleted by
anyone but its owner or its successor, and an owner that was only suspended learns that it has lost.

The clock is that of the file system: those of the machines need not agree.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from dsdistill.errors import UserError
from dsdistill.files.checks import reason
from dsdistill.files.reading import read_text
from dsdistill.files.writing import make_folder

EXPIRES = 300.0
"""Seconds after which a claim that was not renewed counts for nothing."""


class Claims:
    """What this process has claimed in a folder, and what others have.

    Attributes:
        folder: of the claims.
    """

    def __init__(self, folder: Path, expires: float = EXPIRES) -> None:
        """Prepare.

        Args:
            folder: of the claims; it is made when something is claimed.
            expires: seconds after which a claim that was not renewed counts for nothing.
        """
        self.folder = folder
        self._expires = expires
        self._owner = f"process {os.getpid()} on {socket.gethostname()}"
        self._token = secrets.token_hex(16)
        self._own: dict[str, Path] = {}

    def take(self, name: str, note: str = "") -> bool:
        """Claim something; False if another process has it.

        Args:
            name: of what is claimed.
            note: one line that others can read.

        Raises:
            UserError: nothing can be written here.
        """
        if name in self._own:
            return True
        make_folder(self.folder, parents=True)
        files = self._files(name)
        if files and self._is_live(files[-1]):
            return False
        path = self._path(name, _generation(files[-1]) + 1 if files else 1)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        except OSError as error:
            raise UserError(f"cannot write {path}: {reason(error)}") from error
        with os.fdopen(handle, "w") as file:
            file.write(f"{self._owner}\n{self._token}\n{note}\n")
        others = [each for each in self._files(name) if each != path]
        if any(map(self._is_live, others)):  # that one was freed and taken while this process slept
            path.unlink(missing_ok=True)
            return False
        for stale in others:
            stale.unlink(missing_ok=True)
        self._own[name] = path
        return True

    def renew(self) -> list[str]:
        """Say that this process is alive; return the names of what it has lost meanwhile."""
        lost = []
        for name, path in list(self._own.items()):
            with contextlib.suppress(OSError):  # a network that is down for a moment: nothing is known of it
                if self._is_lost(name, path):
                    lost.append(name)
                    del self._own[name]
                else:
                    os.utime(path)
        return lost

    def free(self, name: str) -> None:
        """Give up a claim, if it is this process's own."""
        path = self._own.pop(name, None)
        with contextlib.suppress(OSError):
            if path is not None and not self._is_lost(name, path):
                path.unlink()

    def free_all(self) -> None:
        """Give up every claim of this process."""
        for name in list(self._own):
            self.free(name)

    def owner(self, name: str) -> str:
        """Say who has something, this process included; empty if nobody does."""
        files = self._files(name)
        return _owner_of(files[-1]) if files and self._is_live(files[-1]) else ""

    def others(self) -> Iterator[tuple[str, str, str]]:
        """Yield name, owner and note of everything that other processes have."""
        own = set(self._own)
        for name in sorted({_name(path) for path in self._all()} - own):
            files = self._files(name)
            if files and self._is_live(files[-1]):
                with contextlib.suppress(FileNotFoundError):  # it was given up meanwhile
                    owner, _, note = _lines(files[-1])
                    yield name, owner, note

    def _is_lost(self, name: str, path: Path) -> bool:
        """Whether another process has taken over what this one had.

        Raises:
            OSError: nobody can tell.
        """
        files = self._files(name)
        return not files or files[-1] != path or _lines(path)[1] != self._token

    def _is_live(self, path: Path) -> bool:
        """Whether a claim was renewed lately, by the clock of the file system."""
        try:
            age = self._now() - path.stat().st_mtime
        except FileNotFoundError:
            return False
        return age < self._expires

    def _now(self) -> float:
        """Return the time that a file gets which is written now.

        Raises:
            UserError: nothing can be written here.
        """
        probe = self.folder / f".clock-{self._token}"
        try:
            probe.write_bytes(b"")
            now = probe.stat().st_mtime
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot write in {self.folder}: {reason(error)}") from error
        return now

    def _path(self, name: str, generation: int) -> Path:
        return self.folder / f"{quote(name, safe='')}.{generation:06d}"

    def _files(self, name: str) -> list[Path]:
        """Return the claims of something, the one that counts last."""
        return sorted(path for path in self._all() if _name(path) == name)

    def _all(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return []

    def __repr__(self) -> str:
        return f"<Claims of {len(self._own)} in {self.folder}>"


def _name(path: Path) -> str:
    return unquote(path.stem)


def _generation(path: Path) -> int:
    digits = path.suffix[1:]
    return int(digits) if digits.isdecimal() else 0


def _lines(path: Path) -> tuple[str, str, str]:
    """Return owner, token and note of a claim; empty texts where they are not written yet.

    Raises:
        OSError: it cannot be read.
    """
    try:
        text = read_text(path)
    except ValueError:  # no text at all
        text = ""
    owner, token, note, *_ = [*text.split("\n"), "", "", ""]
    return owner, token, note


def _owner_of(path: Path) -> str:
    try:
        return _lines(path)[0]
    except FileNotFoundError:  # it was given up meanwhile
        return ""
