"""A distilled set as PNG files, as a .pt file or in fewer bytes; for DD-Ranking see `ddranking`."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dsdistill.errors import UserError
from dsdistill.files import beside, check_folder, check_replaceable, reason, replace
from dsdistill.storage import DistilledDataset, Dtype, check_writable, describe, read, to_uint8, write


def export_png(path: str | Path, folder: str | Path) -> str:
    """Write the stored images of a set as ``folder/<class>/<index>.png``, 8 bits a channel, in unit space.

    They are to look at where the set is a multi-formation: `export_pt` writes what is trained on.
    ``folder/labels.csv`` lists (file, label, class), as folders sorted by name need not be in label order.

    Args:
        path: the set.
        folder: made here, whole or not at all; it must not exist or be empty.

    Returns:
        a sentence that says what clipping and rounding to 8 bits cost, and whether images are to be decoded.

    Raises:
        UserError: as `storage.read`; images of neither 1 nor 3 channels; the folder holds something or
            cannot be written.
    """
    distilled = read(path)
    channels = distilled.images.shape[1]
    if channels not in (1, 3):
        raise UserError(f"PNG holds 1 or 3 channels, {path} has {channels}; export it as .pt instead")
    pixels = to_uint8(distilled.images)
    with new_folder(folder) as part:
        _write_folder(part, pixels, distilled.labels, distilled.classes)
    cost = _cost(distilled.images, pixels)
    if distilled.formation.is_identity:
        return cost
    return f"{cost}; the images are stored ones, to be decoded before training: export a .pt for decoded ones"


def export_pt(path: str | Path, out: str | Path, space: Literal["network", "unit"] = "network") -> None:
    """Write a set as one .pt file, a plain dict that ``torch.load(out, weights_only=True)`` reads.

    It holds training images: those that a multi-formation is decoded into, as its readers do not decode.

    Its keys: ``images`` float32 [N,C,H,W] in ``space``, ``labels`` int64 [N], ``soft_labels`` float32 [N,K]
    (only where the set has them), ``classes`` (list of str), ``space``, ``preprocess`` (the kind) and the
    preprocessing's tensors by name: ``mean`` and ``std`` where it standardises.

    Raises:
        UserError: as `storage.read`; unknown space; ``out`` cannot be written, or is a file of another kind.
    """
    check_replaceable(out, ".pth" if Path(out).suffix.lower() == ".pth" else ".pt")
    check_folder(out)
    dataset = DistilledDataset(read(path), space)
    content: dict[str, Tensor | list[str] | str] = {
        "images": dataset.images,
        "labels": dataset.labels,
        "classes": list(dataset.classes),
        "space": space,
        "preprocess": dataset.preprocess.kind,
        **dataset.preprocess.state(),
    }
    if dataset.soft_labels is not None:
        content["soft_labels"] = dataset.soft_labels
    buffer = io.BytesIO()
    torch.save(content, buffer)
    replace(out, buffer.getbuffer())


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


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Make a folder whole or not at all: yield a temporary neighbour, which becomes ``folder`` at the end.

    Raises:
        UserError: ``folder`` is a file or holds something, or cannot be written.
    """
    target = Path(folder).absolute()
    check_folder(target)
    if target.exists() and not (target.is_dir() and next(target.iterdir(), None) is None):
        raise UserError(f"{folder} exists and is not an empty folder; choose another name")
    part = beside(target)
    try:
        part.mkdir()
        yield part
        with contextlib.suppress(FileNotFoundError):
            target.rmdir()
        os.rename(part, target)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {reason(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_folder(folder: Path, pixels: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
    from PIL import Image

    names = _folder_names(classes)
    for name in names:
        (folder / name).mkdir(parents=True)
    width = len(str(int(labels.bincount().max()) - 1))
    index = dict.fromkeys(range(len(classes)), 0)
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "label", "class"])
        for image, label in zip(pixels, labels.tolist(), strict=True):
            name = f"{names[label]}/{index[label]:0{width}d}.png"
            index[label] += 1
            array = image.permute(1, 2, 0).contiguous().numpy()
            Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(folder / name)
            table.writerow([name, label, classes[label]])


def _folder_names(classes: Sequence[str]) -> list[str]:
    """Turn class names into folder names safe on any system, all different even where case is ignored."""
    safe = [re.sub(r"[^\w.+-]+", "_", name).strip("._")[:80] or "class" for name in classes]
    reserved = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices on Windows
    seen: set[str] = {"labels.csv"}
    for label, name in enumerate(safe):
        while name.lower() in seen or reserved.fullmatch(name):
            name = f"{name}_{label}".replace(".", "_")
        seen.add(name.lower())
        safe[label] = name
    return safe


def _cost(images: Tensor, pixels: Tensor) -> str:
    error = (images - pixels.float() / 255).double().abs()
    clipped = float(((images < 0) | (images > 1)).double().mean())
    return (
        f"8-bit PNG: {clipped:.2%} of the pixel values lay outside [0, 1] and were clipped; "
        f"the largest error is {float(error.max()):.4f}, rms {float(error.square().mean().sqrt()):.4f}, "
        "where white is 1"
    )
