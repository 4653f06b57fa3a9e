"""A distilled set in fewer bytes: the same file with smaller pixels."""

from __future__ import annotations

import os
from pathlib import Path

from dsdistill.errors import UserError
from dsdistill.files import expanded
from dsdistill.storage.set_description import describe
from dsdistill.storage.set_file import Dtype, check_writable, read, write


def export_h5(path: str | Path, out: str | Path, dtype: Dtype) -> str:
    """Write a set as another set whose pixels are stored in another dtype; see `set_file.write`.

    Results are not copied, because they belong to the original pixels.

    Returns:
        a sentence with the largest error of a pixel and the bytes of the images before and after.

    Raises:
        UserError: as `set_file.read` and `set_file.write`; or ``out`` is the set itself, or exists.
    """
    path, out = expanded(path), expanded(out)
    if os.path.realpath(out) == os.path.realpath(path):  # which links that lead to themselves do not stop
        raise UserError(f"{out} is the set itself, which stays as it is; choose another name")
    check_writable(out)
    distilled = read(path)
    error = write(out, distilled, dtype)
    before, after = describe(path).image_bytes, describe(out).image_bytes
    half = "; compensators, which may be negative, are float16"
    return (
        f"{dtype}: the largest error of a pixel is {error:.2g}, where white is 1"
        f"{half * (dtype == 'uint8' and distilled.compensators is not None)}; "
        f"images take {after / 1e3:,.1f} kB, they took {before / 1e3:,.1f} kB"
    )
