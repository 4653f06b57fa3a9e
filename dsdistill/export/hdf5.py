"""A distilled set in fewer bytes: the same file with smaller pixels."""

from __future__ import annotations

from pathlib import Path

from dsdistill.errors import UserError
from dsdistill.storage.set_file import Dtype, check_writable, describe, read, write


def export_h5(path: str | Path, out: str | Path, dtype: Dtype) -> str:
    """Write a set as another set whose pixels are stored in another dtype; see `storage.write`.

    Results are left behind: they are those of the pixels as they were.

    Returns:
        a sentence that says what it cost the pixels, and the bytes of the images before and after.

    Raises:
        UserError: as `storage.read` and `storage.write`; or ``out`` is the set itself, or is there already.
    """
    if Path(out).resolve() == Path(path).resolve():
        raise UserError(f"{out} is the set itself, which stays as it is; choose another name")
    distilled = read(path)
    check_writable(out)
    error = write(out, distilled, dtype)
    before, after = describe(path).image_bytes, describe(out).image_bytes
    return (
        f"{dtype}: the largest error of a pixel is {error:.2g}, where white is 1; "
        f"images take {after / 1e3:,.1f} kB, they took {before / 1e3:,.1f} kB"
    )
