"""The folder of unfinished labels, beside their file. A killed labelling loses some seconds of work.

``labelling.json``                 the options, the digests of the images and of the teachers
``<first>-<end>.safetensors``      the views of some epochs: what was drawn, and the answers

Every file of views carries a digest of its content and the digest of ``labelling.json``. Where several
processes label, each keeps files of its own epochs.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from dsdistill import files
from dsdistill.config.options import difference
from dsdistill.errors import UserError
from dsdistill.runtime import tensors
from dsdistill.runtime.notice import Notify
from dsdistill.synthetic.views import Views

_NAME = re.compile(r"(\d{6,9})-(\d{6,9})\.safetensors")
_TOLD = {"images": "another set of images", "committee": "other teachers"}


class LabelParts:
    """The folder of the views that are not in a file yet."""

    def __init__(self, output: Path, identity: str) -> None:
        """Name the folder; nothing is read or written.

        Args:
            output: the file that the views are for.
            identity: what identifies the labels, as JSON.
        """
        self.path = output.with_name(output.name + ".parts")
        self._options = self.path / "labelling.json"
        self._identity = identity
        self._digest = hashlib.sha256(identity.encode()).hexdigest()

    def begin(self, resume: bool, overwrite: bool, notify: Notify) -> None:
        """Accept the folder that an interrupted run has left, or clear it; the first `save` makes it.

        Raises:
            UserError: it holds something else, or labels with other options, or cannot be written.
        """
        files.check_folder(self.path)
        if not self._options.exists():
            if self.path.exists() and not (self.path.is_dir() and files.is_empty(self.path)):
                raise UserError(
                    f"{self.path} is in the way of unfinished labels; move it, or name another output"
                )
            if resume:
                notify(f"there are no labels in {self.path} to resume: starting anew")
            self.clear()
        elif resume:
            self._check(overwrite)
            files.sweep(self.path)
        elif overwrite:
            self.clear()
        else:
            raise UserError(f"{self.path} holds unfinished labels; pass --resume to go on, or --overwrite")

    def _check(self, overwrite: bool) -> None:
        """Check that the labels in the folder are these."""
        try:
            before = files.read_json(self._options)
        except UserError as error:
            if overwrite:
                return self.clear()
            raise UserError(f"{error}; start anew with --overwrite") from error
        changes = difference(before, json.loads(self._identity))
        if not changes:
            return None
        if overwrite:
            return self.clear()
        key, old, new = changes[0]
        what = _TOLD.get(key, f"{key} = {new!r}: it was started with {old!r}")
        raise UserError(
            f"cannot resume {self.path.name} with {what}; leave it as it was, or start anew with --overwrite"
        )

    def make(self) -> None:
        """Make the folder, which the first `save` does otherwise.

        Raises:
            UserError: it cannot be written.
        """
        files.make_folder(self.path)
        if not self._options.exists():
            files.replace(self._options, self._identity.encode())

    def read(self, notify: Notify) -> list[tuple[range, Views]]:
        """Return what is kept: the epochs and the views of each file, in order. A damaged one is deleted.

        Raises:
            UserError: a file cannot be read, which may be otherwise next time.
        """
        parts: list[tuple[range, Views]] = []
        for path, first in self._files():
            if parts and first < parts[-1][0].stop:  # of epochs that were labelled twice
                files.remove(path)
                continue
            try:
                views, end = self._read(path)
            except OSError as error:
                raise UserError(f"cannot read {path}: {files.reason(error)}") from error
            except (ValueError, KeyError):
                notify(f"{path.name} is damaged; its epochs are labelled anew")
                files.remove(path)
                continue
            parts.append((range(first, end), views))
        return parts

    def _read(self, path: Path) -> tuple[Views, int]:
        """Return the views in a file, and the epoch after them."""
        columns, text = tensors.read(path)
        if text.pop("identity") != self._digest:
            raise ValueError(f"{path} belongs to other labels")
        about, classes = json.loads(text["views"]), int(text["classes"])
        return Views.from_columns(columns, about, classes), int(text["end"])

    def save(self, epochs: range, views: Views) -> None:
        """Keep the views of some epochs.

        Raises:
            UserError: they cannot be written.
        """
        self.make()
        path = self.path / f"{epochs.start:06d}-{epochs.stop:06d}.safetensors"
        metadata = {
            "identity": self._digest,
            "end": str(epochs.stop),
            "classes": str(views.answers.num_classes),
            "views": json.dumps(views.about()),
        }
        tensors.write(path, views.columns(), metadata)

    def clear(self) -> None:
        """Delete the folder, if it is there and of a labelling, or empty; the options last, because they tell
        what it is.

        Raises:
            UserError: it cannot be deleted.
        """
        if not self.path.is_dir() or not (self._options.exists() or files.is_empty(self.path)):
            return
        for path, _ in self._files():
            files.remove(path)
        files.remove(self._options)
        files.remove(self.path)

    def _files(self) -> list[tuple[Path, int]]:
        """Return the files of views by their first epochs, in order."""
        paths = self.path.iterdir() if self.path.is_dir() else ()
        parts = [(path, int(match[1])) for path in paths if (match := _NAME.fullmatch(path.name))]
        return sorted(parts, key=lambda each: each[1])
