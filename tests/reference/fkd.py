"""Fast knowledge distillation as the released code of FKD and SRe2L stores its labels: a file for each batch.

Pictures lie as PNG files. For each view one is opened, cropped and resized by PIL, perhaps mirrored, and
standardised; a batch is mixed by CutMix in place and labelled; torch saves a list for it: crops (top, left,
height, width, as shares of the side), flips, the permutation of the mix, its λ, its box, and logits in half
precision. No image is named in it: which ones a batch holds follows from the order that a seed gives.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import hflip, normalize, resized_crop, to_tensor

SEED = 42


def order(images: int, epochs: int) -> Iterator[list[int]]:
    """Yield the order of the images in each epoch, from one generator."""
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(epochs):
        yield torch.randperm(images, generator=generator).tolist()


def opened(file: Path) -> Image.Image:
    """Return the picture in a file, read whole."""
    with Image.open(file) as picture:
        picture.load()
        return picture


def view(
    picture: Image.Image, box: Sequence[int], flip: bool, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Return one view of a picture, standardised."""
    size = [picture.height, picture.width]
    whole = resized_crop(picture, *box, size, InterpolationMode.BILINEAR)
    pixels = to_tensor(hflip(whole) if flip else whole)
    return normalize(pixels, list(mean), list(std))


def cut_box(size: int, share: float, draws: random.Random) -> tuple[int, int, int, int]:
    """Return first row, first column, and one past the last of both, of CutMix's box."""
    half = int(size * math.sqrt(1 - share)) // 2
    row, column = draws.randrange(size), draws.randrange(size)
    edges = (row - half, column - half, row + half, column + half)
    top, left, bottom, right = (min(max(edge, 0), size) for edge in edges)
    return top, left, bottom, right


def mixed(views: Tensor, permutation: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Fill the box of every view with that of its partner."""
    top, left, bottom, right = box
    views[:, :, top:bottom, left:right] = views[permutation, :, top:bottom, left:right]
    return views


@torch.no_grad()
def relabel(
    files: Sequence[Path],
    teacher: nn.Module,
    folder: Path,
    epochs: int,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    mirror: bool = True,
) -> None:
    """Label views of pictures, and write a file for each batch, ``folder/epoch_<e>/batch_<b>.tar``."""
    draws, size = random.Random(0), opened(files[0]).height
    crop = RandomResizedCrop(size)
    for epoch, rows in enumerate(order(len(files), epochs)):
        target = folder / f"epoch_{epoch}"
        target.mkdir(parents=True)
        for batch, first in enumerate(range(0, len(rows), batch_size)):
            chosen, views, boxes, flips = rows[first : first + batch_size], [], [], []
            for row in chosen:
                picture = opened(files[row])
                box = crop.get_params(picture, list(crop.scale), list(crop.ratio))
                flip = mirror and draws.random() < 0.5
                views.append(view(picture, box, flip, mean, std))
                boxes.append(torch.tensor(box) / size)
                flips.append(flip)
            share = draws.betavariate(1.0, 1.0)
            box, permutation = cut_box(size, share, draws), torch.randperm(len(chosen))
            images = mixed(torch.stack(views), permutation, box)
            logits = teacher(images).half()
            content = [torch.stack(boxes), torch.tensor(flips), permutation, share, box, logits]
            torch.save(content, target / f"batch_{batch}.tar")


def replay(
    files: Sequence[Path], rows: Sequence[int], stored: Path, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return the images of a stored batch, and its logits.

    Args:
        rows: of its images, by `order`.
    """
    boxes, flips, permutation, _, box, logits = torch.load(stored, weights_only=True)
    size = opened(files[0]).height
    views = [
        view(opened(files[row]), [round(float(edge) * size) for edge in edges], bool(flip), mean, std)
        for row, edges, flip in zip(rows, boxes, flips, strict=True)
    ]
    return mixed(torch.stack(views), permutation, box), logits.float()
