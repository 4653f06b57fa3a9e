"""SyntheticSet: everything a distillation learns, in one module."""

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
        adversary: a network that is learned against the images, or None.
        student_lr: parameter, scalar: the learning rate of a student on these images; or None.
        label_logits: parameter [K * ipc, K]: the logits of learned labels; or None where labels are fixed.
        average: buffer like ``images``: their exponential moving average, or None.
        labels: buffer int64 [K * ipc], of the stored images: ``ipc`` zeros, then ``ipc`` ones, …
        ipc: stored images per class.
        space: where ``images`` live: "network" (standardised or whitened, as DC, DSA and DM optimise) or
            "unit" (0 black, 1 white, preprocessed on the way into a network).
        formation: how stored images become training images, always in unit space, as from the file.
        flip: whether mirror images are matched beside them (FYI).
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
        formation: MultiFormation = IDENTITY,
    ) -> None:
        super().__init__()
        self.ipc = len(images) // classes
        self.space = space
        self.preprocess = preprocess
        self.formation = formation
        self.flip = False
        self._beside: tuple[torch.device, torch.dtype, Preprocess] | None = None
        self.images = nn.Parameter(images)
        self.adversary = None
        self.student_lr = None
        self.label_logits = None
        self.register_buffer("average", None)
        self.register_buffer("labels", torch.arange(classes).repeat_interleave(self.ipc))

    @property
    def decoded_per_class(self) -> int:
        """Training images that the stored ones of a class become."""
        return self.formation.decoded(self.ipc)

    @property
    def matched_per_class(self) -> int:
        """Images of a class that a matching step sees: those decoded, and their mirror images."""
        return self.decoded_per_class * self.copies

    @property
    def copies(self) -> int:
        """How often a matching step sees each image: twice where mirror images are matched too."""
        return 2 if self.flip else 1

    def batch(self, images: Tensor) -> Tensor:
        """Return what a step sees in place of training images: themselves, or with their mirror images.

        FYI (Son et al., *FYI: Flip Your Images for Dataset Distillation*, ECCV 2024) has every synthetic
        batch [x; flip(x)], before it is augmented; what is learned gets its gradient through both.

        Args:
            images: [..., n, C, H, W].

        Returns:
            ``images``, or [..., 2n, C, H, W].
        """
        return torch.cat([images, images.flip(-1)], -4) if self.flip else images

    def origins(self) -> Tensor:
        """Return which stored image each decoded one comes from, class by class as `of`; int64, CPU."""
        first = torch.arange(0, len(self.labels), self.ipc)
        return (first[:, None] + self.formation.origins(self.ipc)).flatten()

    def of(self, classes: Tensor) -> Tensor:
        """Return the training images of some classes as a network sees them, [class, decoded, C, H, W].

        Args:
            classes: int64 [k], distinct label values in ascending order.
        """
        stored = self.images.unflatten(0, (-1, self.ipc))
        if len(classes) < len(stored):
            stored = stored[classes]
        if self.space == "network" and self.formation.is_identity:
            return stored
        preprocess = self._local_preprocess()
        if self.space == "network":
            stored = preprocess.inverse(stored.flatten(0, 1)).unflatten(0, stored.shape[:2])
        decoded = decode(stored, self.formation)
        return preprocess(decoded.flatten(0, 1)).unflatten(0, decoded.shape[:2])

    def keep_average(self) -> None:
        """Begin to average the images, from what they are now."""
        self.average = self.images.detach().clone()

    def update_average(self, decay: float) -> None:
        """Move the average towards the images: decay · average + (1 - decay) · images."""
        assert self.average is not None
        self.average.lerp_(self.images.detach(), 1 - decay)

    def unit_images(self) -> Tensor:
        """Return what is stored in unit space [K * ipc, C, H, W], detached; it may exceed [0, 1].

        These are the images, or their average where one is kept.
        """
        images = self.images.detach() if self.average is None else self.average
        return images if self.space == "unit" else self._local_preprocess().inverse(images)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the stored pixels back into [0, 1], in place; for sets learned in unit space.

        Raises:
            ValueError: the set lives in network space, where black and white are no bounds.
        """
        if self.space != "unit":
            raise ValueError(f"pixels in {self.space} space are not clamped to [0, 1]")
        self.images.clamp_(0, 1)

    def _local_preprocess(self) -> Preprocess:
        """Return the preprocessing in the images' device and dtype, kept: inverting a ZCA takes a while."""
        device, dtype = self.images.device, self.images.dtype
        if self._beside is None or self._beside[:2] != (device, dtype):
            self._beside = (device, dtype, self.preprocess.to(device, dtype))
        return self._beside[2]
