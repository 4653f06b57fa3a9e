"""Convert arrays of images: square, of a size and number of channels; and split them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import interpolate

from dsdistill.data import mapped
from dsdistill.data.config import DataConfig, Split
from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError
from dsdistill.runtime.callbacks import Callback
from dsdistill.seeding import generator


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Repeat grey to RGB, or reduce RGB to ITU-R 601 luma; uint8 [N,C,H,W] in and out."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    # Pillow's fixed-point luma, so that a folder and an array agree; torchvision's truncates
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)
    luma = (images.int() * weights.view(3, 1, 1)).sum(1, keepdim=True)
    return (luma + (1 << 15)).div(1 << 16, rounding_mode="floor").to(torch.uint8)


def fit(images: Tensor, size: int, channels: int, chunk: int = 1024) -> Tensor:
    """Return uint8 [N,channels,size,size] from uint8 [N,C,H,W]: bilinear, antialiased, aspect not kept.

    Raises:
        UserError: there is no room for them.
    """

    def fit_chunk(part: Tensor) -> Tensor:
        part = with_channels(part, channels)
        if part.shape[2:] == (size, size):
            return part
        return interpolate(part, (size, size), mode="bilinear", align_corners=False, antialias=True)

    if images.shape[1:] == (channels, size, size):
        return images
    return _changed(images, (channels, size, size), fit_chunk, chunk)


def padded(images: Tensor, size: int) -> Tensor:
    """Return uint8 [N,C,size,size] from smaller uint8 [N,C,S,S]: black margins around them.

    Raises:
        UserError: there is no room for them.
    """
    margin = size - images.shape[-1]
    if not margin:
        return images
    before, after = margin // 2, margin - margin // 2
    shape = (images.shape[1], size, size)
    return _changed(images, shape, lambda part: F.pad(part, (before, after, before, after)), 1024)


def _changed(
    images: Tensor, shape: tuple[int, int, int], change: Callable[[Tensor], Tensor], chunk: int
) -> Tensor:
    """Return images that are changed to a shape, some at a time.

    Raises:
        UserError: there is no room for them.
    """
    claim = f"{len(images)} images of {'x'.join(map(str, shape))} take"
    changed = mapped.as_tensor(mapped.room((len(images), *shape), claim, "choose a smaller --size"))
    for start in range(0, len(images), chunk):
        changed[start : start + chunk] = change(images[start : start + chunk])
    return changed


def present(
    config: DataConfig,
    split: Split,
    images: Tensor,
    labels: Tensor,
    classes: tuple[str, ...],
    observer: Callback,
) -> RealDataset:
    """Return uint8 [N,C,H,W] images as a split, `presented`."""
    fitted = presented(config, f"{config.name} ({split})", images, observer)
    return RealDataset(config.name, split, fitted, labels, classes)


def presented(config: DataConfig, what: str, images: Tensor, observer: Callback) -> Tensor:
    """Convert uint8 [N,C,H,W] images to the configured size and channels; report it if that changes them.

    Args:
        what: the name of the images in the report.
    """
    native, height, width = images.shape[1:]
    size, channels = config.size or min(height, width), config.channels or native
    parts = []
    if (height, width) != (size, size):
        parts.append(f"resized from {height}x{width} to {size}x{size} (bilinear, antialiased)")
    if native != channels:
        parts.append("greyscale repeated to 3 channels" if native == 1 else "colour reduced to luma")
    fitted = fit(images, size, channels)
    if parts:
        observer.on_notice(f"{what}: {len(images)} images, {', '.join(parts)}")
    return fitted


def stratified(labels: Tensor, fraction: float, classes: tuple[str, ...]) -> dict[Split, Tensor]:
    """Hold out about ``fraction`` of every class; return the ascending positions of train and test.

    A fixed function of the labels. Unlike scikit-learn's stratified split it never leaves a class without an
    image on either side.

    Raises:
        UserError: a class has a single image.
    """
    test: list[Tensor] = []
    for label, name in enumerate(classes):
        members = (labels == label).nonzero().flatten()
        if len(members) < 2:
            raise UserError(
                f"class {name!r} has {len(members)} image; holding out a test split needs 2 or more, "
                "so add images or give train and test apart"
            )
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        order = torch.randperm(len(members), generator=generator(0, "test split", label))
        test.append(members[order[:count]])
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    is_test[torch.cat(test)] = True
    return {"train": (~is_test).nonzero().flatten(), "test": is_test.nonzero().flatten()}
