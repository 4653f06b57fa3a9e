"""Test images, and the accuracy of students on them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import RealDataset
from dsdistill.evaluation.ensembles import Ensemble
from dsdistill.evaluation.execution import Execution
from dsdistill.runtime.allocations import peak_of
from dsdistill.runtime.device import autocast

_RESIDENT_BYTES = 1 << 30  # a test set up to this size is preprocessed once, not once per student
_CHUNK_PIXELS = 1 << 19  # of one channel, in one chunk of test images: 512 images of 32×32


class TestImages:
    """The test images in network space, in chunks of one shape.

    Iterating yields (images [chunk,C,H,W], labels [n]). The last chunk may be padded: then n < chunk.
    """

    def __init__(
        self,
        test: RealDataset,
        preprocess: Preprocess,
        device: torch.device,
        zoom: bool = False,
        chunk: int | None = None,
    ) -> None:
        """Prepare.

        Args:
            preprocess: from unit pixels to network space.
            zoom: enlarge to ⌊size / 7⌋·8 pixels and crop at the centre, in network space.
            chunk: images of a chunk, in place of as many as suit the memory.
        """
        side = test.images.shape[-1]
        self._zoom = zoom
        self._test, self._device = test, device
        self._preprocess = preprocess.to(device)
        self._chunk = chunk or min(max(1, _CHUNK_PIXELS // side**2), 1024, len(test))
        self._resident: list[tuple[Tensor, Tensor]] | None = None

    def of(self, other: RealDataset) -> TestImages:
        """Return other images in the same network space and chunks: what is compiled for one suits both."""
        return TestImages(other, self._preprocess, self._device, self._zoom, self._chunk)

    def __len__(self) -> int:
        return len(self._test)

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return -(-len(self._test) // self._chunk)

    @property
    def resident_bytes(self) -> int:
        """Bytes of the test set in network space, if it is kept there between students."""
        size = 4 * self._test.images.numel()
        return size if size <= _RESIDENT_BYTES else 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._resident is None and self.resident_bytes:
            self._resident = list(self._chunks())
        return iter(self._resident) if self._resident is not None else self._chunks()

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self._test), self._chunk):
            rows = slice(start, start + self._chunk)
            images = self._preprocess(self._test.unit(rows).to(self._device))
            if self._zoom:
                images = zoomed(images)
            missing = self._chunk - len(images)
            yield F.pad(images, (0, 0) * 3 + (0, missing)), self._test.labels[rows].to(self._device)


def zoomed(images: Tensor) -> Tensor:
    """Enlarge images [B, C, S, S] to ⌊S / 7⌋·8 pixels, bilinearly, and crop S×S at the centre (RDED)."""
    size = images.shape[-1]
    side = size // 7 * 8
    if side <= size:
        return images
    larger = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
    first = round((side - size) / 2)
    return larger[..., first : first + size, first : first + size]


def accuracies(ensemble: Ensemble, test_images: TestImages, execution: Execution) -> list[float]:
    """Return the fraction of test images that each student classifies correctly."""
    return [count / len(test_images) for count in _correct(ensemble, test_images, execution)]


def seconds_of_testing(
    ensemble: Ensemble, test_images: TestImages, execution: Execution
) -> tuple[float, float]:
    """Estimate by one chunk what testing takes.

    Returns:
        seconds that the first chunk took above the others, as it warms up; and those of all chunks.
    """
    chunk, times = next(iter(test_images)), []
    for _ in range(3):
        since = time.monotonic()
        _correct(ensemble, [chunk], execution)
        times.append(time.monotonic() - since)
    usual = min(times[1:])
    return max(0.0, times[0] - usual), usual * test_images.chunks


def bytes_of_testing(ensemble: Ensemble, test_images: TestImages, execution: Execution) -> int:
    """Return the most bytes of tensors that testing makes at once, besides those of the images."""
    chunk = next(iter(test_images))
    return peak_of(lambda: _correct(ensemble, [chunk], execution))


@torch.inference_mode()
def _correct(ensemble: Ensemble, chunks: Iterable[tuple[Tensor, Tensor]], execution: Execution) -> list[int]:
    """Count the images that each student classifies correctly."""
    ensemble.train(False)
    correct = torch.zeros(ensemble.count, dtype=torch.int64, device=execution.device)
    for images, labels in chunks:
        with autocast(execution.device, execution.precision):
            predicted = ensemble.logits(images).argmax(-1)
        correct += (predicted[:, : len(labels)] == labels).sum(1)
    return correct.tolist()
