"""A distilled set as a folder of PNG files."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from dsdistill.config.options import table_at
from dsdistill.data.preprocess import Standardise
from dsdistill.errors import UserError
from dsdistill.export.training_images import png
from dsdistill.files import check_new_folder, expanded, make_folder, new_folder, parse_toml, write_new
from dsdistill.storage.set_file import read, to_uint8
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.extra_labels import left_out
from dsdistill.text import cell, within


def export_png(path: str | Path, folder: str | Path) -> str:
    """Write the stored images of a set as ``folder/<class>/<index>.png``, 8 bits a channel, in unit space.

    The stored images of a multi-formation are no training images: `export_pt` writes those. Compensators
    are no pictures, so of a set that has some the training images are written.
    ``folder/labels.csv`` lists (file, label, class), because the order of folders may not be that of labels.
    Its class names are written as `cell` says, so that no spreadsheet computes them; files and labels need no
    such care.

    Args:
        path: the set.
        folder: the folder to create, complete or not at all; it must not exist or be empty.

    Returns:
        a sentence on the error of clipping and rounding to 8 bits, on the options that distil pixels within
        [0, 1], on decoding if the set needs it, and on labels that are left out.

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
    images, labels = distilled.images, distilled.labels
    if distilled.compensators is not None:
        images, origins = distilled.decode()
        labels = labels[origins]
    pixels = to_uint8(images)
    with new_folder(folder) as part:
        _write_folder(part, pixels, labels, distilled.classes)
    sentence = _cost(images, pixels) + _remedy(distilled)
    if distilled.compensators is not None:
        sentence += f"; the {distilled.stored_count} stored images are written as {len(images)} decoded ones"
    if not distilled.multi_formation.is_identity:
        sentence += (
            "; the images are stored ones, to be decoded before training: export a .pt for decoded ones"
        )
    return "; ".join([sentence, *left_out(distilled)])


def _write_folder(folder: Path, pixels: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
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
        write_new(folder / name, png(image))
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


_CLIPPED = 1e-3
"""The share of clipped pixel values from which another distillation is suggested."""


def _remedy(distilled: DistilledSet) -> str:
    """Name the options that distil such a set with pixels in [0, 1], if many are not and that would help.

    A learning rate of standardised pixels becomes one of unit pixels that moves them as far: times the
    variance for SGD, whose gradient changes as well, and times the deviation for AdamW.
    """
    images, preprocess = distilled.images, distilled.preprocess
    try:
        options = parse_toml(str(distilled.attributes.get("config", "")))
    except ValueError:
        options = {}
    optimiser = table_at(options, "optimiser")
    if (
        not options
        or optimiser.get("clamp_every") == 1
        or ((images < 0) | (images > 1)).double().mean() < _CLIPPED
    ):
        return ""
    words = ["optimiser.clamp_every=1"]
    if options.get("space", "network") != "unit":
        words.insert(0, "space=unit")
        if isinstance(preprocess, Standardise) and isinstance(rate := optimiser.get("lr"), int | float):
            power = 1 if optimiser.get("kind") == "adamw" else 2
            words.append(f"optimiser.lr={rate * float(preprocess.std.mean()) ** power:.3g}")
    options_ = " ".join(f"--set {word}" for word in words)
    return f"; to distil pixels that stay inside but for the last step, pass {options_}"
