"""The evaluations in a set's file: read them, add one."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from dsdistill import files
from dsdistill.errors import UserError
from dsdistill.files import exclusive, parse_json, reason, replace
from dsdistill.runtime.notice import Notify, silent
from dsdistill.storage.hdf5 import LAYOUT, SET, attribute, opened
from dsdistill.storage.set_file import check_same, digest
from dsdistill.storage.set_schema import add_result, parse, parse_results
from dsdistill.storage.structure import LONGEST, NODES

MOST_RESULTS = NODES // 4
"""Evaluations that a file may hold; a node and an attribute each."""


def results(path: str | Path) -> list[dict[str, Any]]:
    """Return the evaluations in a set's file, in the order in which they were added.

    Raises:
        UserError: as `set_file.read`.
    """
    with opened(path, SET) as file:
        return list(parse_results(file).values())


def append_result(
    path: str | Path, result: Mapping[str, Any], expected: str = "", notify: Notify = silent
) -> None:
    """Add an evaluation to a set's file; the set and its checksum do not change.

    Args:
        expected: the `set_file.digest` of the set that was evaluated; empty for any.
        notify: as for `set_file.write`.

    Raises:
        UserError: as `set_file.read`; the result is not JSON, or too large; the file holds another set by
            now, or cannot be written.
    """
    try:
        text = json.dumps(result, allow_nan=False)
        parse_json(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"the result cannot be written as JSON: {reason(error)}") from error
    if len(text) > LONGEST:
        raise UserError(f"a result of more than {LONGEST / 1e6:.3g} MB is no evaluation; shorten it")
    path = files.expanded(path)
    if not path.exists():
        digest(path)  # raises the error of a file that is not there
    files.check_target(path)
    with exclusive(path, notify):  # or two evaluations that end at the same time would lose one result
        with opened(path, SET) as file:
            parse(file)
            sha256, earlier = str(attribute(file, "sha256")), parse_results(file)
            check_same(path, sha256, expected)
        number = max(earlier, default=-1) + 1
        if number >= MOST_RESULTS:
            raise UserError(
                f"{path} holds {number:,} results, as many as it can; evaluate a copy without them"
            )
        buffer = io.BytesIO(_bytes(path))
        with h5py.File(buffer, "r+", libver=LAYOUT) as file:
            add_result(file, number, text)
        _check_added(buffer, path, sha256, earlier | {number: json.loads(text)})
        replace(path, buffer.getbuffer())


def _bytes(path: str | Path) -> bytes:
    try:
        return files.read(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error


def _check_added(
    buffer: io.BytesIO, path: str | Path, digest: str, results: Mapping[int, Mapping[str, Any]]
) -> None:
    """Check that the new content of a file holds the same set as the old one, and these results.

    Raises:
        UserError: it does not.
    """
    try:
        with h5py.File(buffer, "r") as file:
            parse(file)
            whole = attribute(file, "sha256") == digest and parse_results(file) == results
    except Exception as error:  # h5py meets damage with OSError, KeyError, RuntimeError, ValueError, …
        raise UserError(f"{path} stays as it is: with the result it cannot be read") from error
    if not whole:
        raise UserError(f"{path} stays as it is: with the result it holds something else")
