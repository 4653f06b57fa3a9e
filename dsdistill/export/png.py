"""A distilled set as a folder of PNG files."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from dsdistill.errors import UserError
from dsdistill.files import check_new_folder, expanded, make_folder, new_folder, write_new
from dsdistill.storage.set_file import read, to_uint8
from dsdistill.text import cell, within


def export_png(path: str | Path, folder: str | Path) -> str:
    """Write the stored images of a set as ``folder/<class>/<index>.png``, 8 bits a channel, in unit space.

    The stored images of a multi-formation are no training images: `export_pt` writes those.
    ``folder/labels.csv`` lists (file, label, class), because the order of folders may not be that of labels.
    Its class names are written as `cell` says, so that no spreadsheet computes them; files and labels need no
    such care.

    Args:
        path: the set.
        folder: the folder to create, complete or not at all; it must not exist or be empty.

    Returns:
        a sentence on the error of clipping and rounding to 8 bits, and on decoding if the set needs it.

    Raises:
        UserError: as `set_file.read`; the images have neither 1 nor 3 channels; or the folder is not empty or
            cannot be written.
    """
    folder = expanded(folder)
    check_new_folder(folder)
    distilled = read(path)
    channels = distilled.images.shape[1]
    if channels not in (1, 3):
        raise UserError(f"PNG holds 1 or 3 channels, {path} has {channels}; export it as .pt instead")
    pixels = to_uint8(distilled.images)
    with new_folder(folder) as part:
        _write_folder(part, pixels, distilled.labels, distilled.classes)
    cost = _cost(distilled.images, pixels)
    if distilled.multi_formation.is_identity:
        return cost
    return f"{cost}; the images are stored ones, to be decoded before training: export a .pt for decoded ones"


def _write_folder(folder: Path, pixels: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
    from PIL import Image

    names = _folder_names(classes)
    for name in names:
        make_folder(folder / name)
    width = len(str(int(labels.bincount().max()) - 1))
    index = dict.fromkeys(range(len(classes)), 0)
    listing = io.StringIO(newline="")
    table = csv.writer(listing)
    table.writerow(["file", "label", "class"])
    for image, label in zip(pixels, labels.tolist(), strict=True):
        name = f"{names[label]}/{index[label]:0{width}d}.png"
        index[label] += 1
        array = image.permute(1, 2, 0).contiguous().numpy()
        picture = io.BytesIO()
        Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(picture, "PNG")
        write_new(folder / name, picture.getbuffer())
        table.writerow([name, label, cell(classes[label])])
    write_new(folder / "labels.csv", listing.getvalue().encode())


def _folder_names(classes: Sequence[str]) -> list[str]:
    """Turn class names into folder names that are safe on any system and differ there.

    Systems ignore case, or how an accent is composed, or take a name for a device or an option.
    """
    words = [re.sub(r"[^\w.+-]+", "_", name).strip("._+-") for name in classes]
    safe = [within(word, 80).rstrip(".") or "class" for word in words]
    reserved = re.compile(r"(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³])(\..*)?", re.IGNORECASE)  # on Windows
    names: set[str] = {"labels.csv"}
    for label, name in enumerate(safe):
        while _folded(name) in names or reserved.fullmatch(name):
            name = f"{name}_{label}".replace(".", "_")
        names.add(_folded(name))
        safe[label] = name
    return safe


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _cost(images: Tensor, pixels: Tensor) -> str:
    error = (images - pixels.float() / 255).double().abs()
    clipped = float(((images < 0) | (images > 1)).double().mean())
    return (
        f"8-bit PNG: {clipped:.2%} of the pixel values lay outside [0, 1] and were clipped; "
        f"the largest error is {float(error.max()):.4f}, rms {float(error.square().mean().sqrt()):.4f}, "
        "where white is 1"
    )
