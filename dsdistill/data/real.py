"""Real images, and the classification task that they define."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from dsdistill.config.unlabelled import UNLABELLED, classes_words, is_labelled
from dsdistill.data import mapped
from dsdistill.data.preprocess import Preprocess
from dsdistill.runtime.device import available_memory
from dsdistill.runtime.notice import Progress, silent

Buffer: TypeAlias = bytes | memoryview


@dataclass(frozen=True)
class Task:
    """A classification task: class names, image shape, and the preprocessing fitted on its train split.

    Data without labels have one class, `UNLABELLED`.

    ``name`` is without folders, because files tell it that are passed on. ``mirror`` says that a horizontal
    flip keeps the label (false for digits and letters).
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    size: int
    preprocess: Preprocess
    mirror: bool

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.channels, self.size, self.size)

    def describe(self, images: int) -> str:
        """Return name, number and shape of the images and number of classes, as displays show them."""
        return (
            f"{self.name}: {images} images of {'x'.join(map(str, self.shape))}, {classes_words(self.classes)}"
        )


def fingerprint(
    shape: tuple[int, ...], classes: tuple[str, ...], pixels: Iterable[Buffer], labels: Tensor
) -> str:
    """Return the fingerprint of images whose bytes come in parts of any size."""
    digest = hashlib.sha256(json.dumps([list(shape), classes]).encode())
    for part in pixels:
        digest.update(part)
    digest.update(labels.cpu().numpy().astype("<i8").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class RealDataset:
    """One split of real images: uint8 [N,C,H,W], in memory or memory-mapped, and int64 labels [N].

    The images may be mapped from a cache file: treat them as read-only. ``labelled`` is the same split with
    the labels that were left out of it, where some were.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    labelled: RealDataset | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 [N,C,H,W], not {self.images.dtype} {self.images.ndim}-d")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError("labels must be int64 [N], one per image")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of shape, pixels, labels and class order; streamed, so a memory map stays on disk."""
        return self._hashed(silent)

    def fingerprinted(self, progress: Progress, known: str = "") -> RealDataset:
        """Return the same data with their fingerprint at hand.

        Args:
            progress: hears how many megabytes are hashed.
            known: the fingerprint, if it need not be computed.
        """
        data = dataclasses.replace(self)
        data.__dict__["fingerprint"] = known or self._hashed(progress)
        return data

    def has_images_of(self, fingerprint: str) -> bool:
        """Whether a fingerprint is that of these images, with the labels that they came with or without any.

        Of the fingerprints of these images, the second is computed only where the first is another.
        """
        if fingerprint == self.fingerprint:
            return True
        other = self.without_labels() if is_labelled(self.classes) else self.labelled
        return other is not None and other.fingerprint == fingerprint

    def _hashed(self, progress: Progress) -> str:
        advance, total = (
            mapped.megabytes(f"{self.name} ({self.split}): hashing", progress),
            self.images.nbytes,
        )
        size = mapped.rows_of(self.images[:1].nbytes)

        def parts() -> Iterator[Buffer]:
            done = 0
            for part in self.images.split(size):
                yield part.contiguous().cpu().numpy().data
                done += part.nbytes
                advance(done, total)

        return fingerprint(tuple(self.images.shape), self.classes, parts(), self.labels)

    @cached_property
    def counts(self) -> Tensor:
        """Images per class, int64 [K]."""
        return torch.bincount(self.labels, minlength=len(self.classes))

    @cached_property
    def _indices(self) -> tuple[Tensor, ...]:
        return self.labels.argsort(stable=True).split(self.counts.tolist())

    def indices_of(self, label: int) -> Tensor:
        """Return the positions of a class's images in ascending order, int64 [n]."""
        return self._indices[label]

    def unit(self, indices: Tensor | slice) -> Tensor:
        """Return images in unit pixel space, float32 [n,C,H,W] in [0, 1]."""
        if isinstance(indices, Tensor):
            indices = indices.to(self.images.device, non_blocking=True)
        pixels = self.images[indices].to(torch.float32).div_(255)
        # With one channel several strides are equivalent, and convolutions are slow for some of them.
        return pixels.flatten().view(pixels.shape)

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the images take: none where they are in a file."""
        return 0 if mapped.is_mapped(self.images) else self.images.nbytes

    def part(self, rows: Tensor) -> RealDataset:
        """Return some of the images, at positions int64 [n], as a data set of their own."""
        images = mapped.gathered(self.images, rows.to(self.images.device))
        return RealDataset(self.name, self.split, images, self.labels[rows], self.classes)

    def without_labels(self) -> RealDataset:
        """Return the same images as data without labels."""
        return RealDataset(
            self.name, self.split, self.images, torch.zeros_like(self.labels), UNLABELLED, labelled=self
        )

    def to(self, device: torch.device | str) -> RealDataset:
        """Return the data set with its images on a device; a memory map is read into the device's memory.

        Labels stay on the CPU, where batches are drawn: reading them elsewhere would wait for the device.
        """
        moved = RealDataset(self.name, self.split, self.images.to(device), self.labels, self.classes)
        known = self.__dict__.get("fingerprint", "")
        return moved.fingerprinted(silent, known) if known else moved

    def resident_on(self, device: torch.device) -> RealDataset:
        """Return the data set with its images on a CUDA device if they leave most of its memory free."""
        free = available_memory(device)
        fits = device.type == "cuda" and free and self.images.numel() < free // 4
        return self.to(device) if fits else self
