"""SyntheticSet: everything that a distillation learns, in one module."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dsdistill.data.preprocess import Preprocess
from dsdistill.synthetic.adversary import FrequencySampler
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation, decode

Space = Literal["network", "unit"]


class SyntheticSet(nn.Module):
    """The learnable images, class-major, with their fixed labels.

    Attributes:
        images: parameter [K * ipc, C, H, W] in ``space``, as they are stored.
        adversary: a network that maximises the loss which the images minimise, or None.
        student_lr: parameter, scalar: the learning rate of a student on these images; or None.
        label_logits: parameter [K * ipc, K]: the logits of learned labels, or None if labels are fixed.
        average: buffer like ``images``: their exponential moving average, or None.
        labels: buffer int64 [K * ipc], of the stored images: ``ipc`` zeros, then ``ipc`` ones, …
        ipc: stored images per class.
        space: where ``images`` live: "network" (standardised or whitened, as DC, DSA and DM optimise) or
            "unit" (0 black, 1 white, preprocessed on the way into a network).
        multi_formation: how stored images become training images; they are decoded in unit space.
        flip: whether mirror images are matched too (FYI).
    """

    images: nn.Parameter
    labels: Tensor
    adversary: FrequencySampler | None
    student_lr: nn.Parameter | None
    label_logits: nn.Parameter | None
    average: Tensor | None

    def __init__(
        self,
        images: Tensor,
        classes: int,
        space: Space,
        preprocess: Preprocess,
        multi_formation: MultiFormation = IDENTITY,
    ) -> None:
        super().__init__()
        self.ipc = len(images) // classes
        self.space = space
        self.preprocess = preprocess
        self.multi_formation = multi_formation
        self.flip = False
        self._preprocess_copy: tuple[torch.device, torch.dtype, Preprocess] | None = None
        self.images = nn.Parameter(images)
        self.adversary = None
        self.student_lr = None
        self.label_logits = None
        self.register_buffer("average", None)
        self.register_buffer("labels", torch.arange(classes).repeat_interleave(self.ipc))

    @property
    def decoded_per_class(self) -> int:
        """Training images that the stored images of a class decode into."""
        return self.multi_formation.decoded_count(self.ipc)

    @property
    def matched_per_class(self) -> int:
        """Images of a class in a matching step: the decoded ones and, with ``flip``, their mirror images."""
        return self.decoded_per_class * self.copies

    @property
    def copies(self) -> int:
        """Copies of each image in a matching step: 2 with mirror images, else 1."""
        return 2 if self.flip else 1

    def batch(self, images: Tensor) -> Tensor:
        """Add mirror images to a batch if ``flip`` is set.

        FYI (Son et al., *FYI: Flip Your Images for Dataset Distillation*, ECCV 2024) has every synthetic
        batch [x; flip(x)], before it is augmented; gradients flow through both halves.

        Args:
            images: [..., n, C, H, W].

        Returns:
            ``images``, or [..., 2n, C, H, W].
        """
        return torch.cat([images, images.flip(-1)], -4) if self.flip else images

    def origins(self) -> Tensor:
        """Return the stored image that each decoded image comes from, in the order of `of`; int64, CPU."""
        first = torch.arange(0, len(self.labels), self.ipc)
        return (first[:, None] + self.multi_formation.origins(self.ipc)).flatten()

    def of(self, classes: Tensor) -> Tensor:
        """Return the training images of some classes in network space, [class, decoded, C, H, W].

        Args:
            classes: int64 [k], distinct label values in ascending order.
        """
        stored = self.images.unflatten(0, (-1, self.ipc))
        if len(classes) < len(stored):
            stored = stored[classes]
        if self.space == "network" and self.multi_formation.is_identity:
            return stored
        preprocess = self._local_preprocess()
        if self.space == "network":
            stored = preprocess.inverse(stored.flatten(0, 1)).unflatten(0, stored.shape[:2])
        decoded = decode(stored, self.multi_formation)
        return preprocess(decoded.flatten(0, 1)).unflatten(0, decoded.shape[:2])

    def start_average(self) -> None:
        """Start the moving average at the current images."""
        self.average = self.images.detach().clone()

    def update_average(self, decay: float) -> None:
        """Move the average towards the images: decay · average + (1 - decay) · images."""
        assert self.average is not None
        self.average.lerp_(self.images.detach(), 1 - decay)

    def unit_images(self) -> Tensor:
        """Return the images to store, in unit space [K * ipc, C, H, W], detached; they may exceed [0, 1].

        These are the averaged images if there is an average, else the images.
        """
        images = self.images.detach() if self.average is None else self.average
        return images if self.space == "unit" else self._local_preprocess().inverse(images)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamp the stored pixels to [0, 1], in place; for sets learned in unit space.

        Raises:
            ValueError: the set is learned in network space, where pixels have no bounds.
        """
        if self.space != "unit":
            raise ValueError(f"pixels in {self.space} space are not clamped to [0, 1]")
        self.images.clamp_(0, 1)

    def _local_preprocess(self) -> Preprocess:
        """Return the preprocessing on the images' device and in their dtype.

        The copy is cached, because inverting a ZCA matrix is slow.
        """
        device, dtype = self.images.device, self.images.dtype
        if self._preprocess_copy is None or self._preprocess_copy[:2] != (device, dtype):
            self._preprocess_copy = (device, dtype, self.preprocess.to(device, dtype))
        return self._preprocess_copy[2]
