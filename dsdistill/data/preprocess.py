"""Maps from unit pixel space (0 black, 1 white) to network space, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from dsdistill.data.mapped import rows_of
from dsdistill.errors import UserError, unknown
from dsdistill.runtime.device import check_memory
from dsdistill.runtime.notice import Progress, silent

STD_FLOOR = 1 / 255  # one grey level: a constant channel must not divide by zero
ZCA_EPS = 0.1
_ZCA_MATRICES = 4  # of float64, while eigenvectors are computed
ZCA_MAX_DIMENSION = 12288  # 3 x 64 x 64; the covariance of more would not fit in memory


class Preprocess(ABC):
    """An invertible, differentiable map from unit pixel space to network space."""

    kind: ClassVar[str]

    @abstractmethod
    def __call__(self, unit: Tensor) -> Tensor:
        """Map [B,C,H,W] unit pixels to network space; differentiable."""

    @abstractmethod
    def inverse(self, x: Tensor) -> Tensor:
        """Map [B,C,H,W] network-space images back to unit pixels (not clipped to [0, 1]); differentiable."""

    @abstractmethod
    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Return a copy on another device or in another dtype."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return the CPU tensors from which :func:`from_state` rebuilds this map."""

    def agrees(self, other: Preprocess) -> bool:
        """Whether another one is the same, up to the difference in rounding between two machines."""
        mine, theirs = self.state(), other.state()
        return self.kind == other.kind and all(
            value.shape == theirs[name].shape and torch.allclose(value, theirs[name], rtol=1e-3, atol=1e-3)
            for name, value in mine.items()
        )


@dataclass(frozen=True, eq=False)
class Standardise(Preprocess):
    """(x - mean) / std per channel; ``mean`` and ``std`` are float32 [C]."""

    kind: ClassVar[str] = "standardise"
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, mean: tuple[float, ...], std: tuple[float, ...]) -> Standardise:
        """Build from plain numbers, one per channel."""
        return cls(torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32))

    @classmethod
    def fit(cls, images: Tensor, progress: Progress = silent) -> Standardise:
        """Take mean and (population) standard deviation over all pixels of uint8 [N,C,H,W] images.

        Works on grey-level histograms, so the result is exact and a memory map is only streamed through.

        Args:
            images: may be a memory map.
            progress: hears how many images are taken into account.
        """
        channels, done, what = images.shape[1], 0, "mean and standard deviation: reading images"
        counts = torch.zeros(channels, 256, dtype=torch.int64)
        for part in images.split(rows_of(8 * images[0].numel())):  # bincount works on int64
            progress(what, done, len(images))
            for c in range(channels):
                counts[c] += torch.bincount(part[:, c].flatten(), minlength=256).cpu()
            done += len(part)
        progress(what, done, len(images))
        weight = counts.double() / counts.sum(1, keepdim=True)
        level = torch.arange(256, dtype=torch.float64) / 255
        mean = weight @ level
        std = (weight * (level - mean[:, None]).square()).sum(1).sqrt().clamp_min(STD_FLOOR)
        return cls(mean.float(), std.float())

    def __call__(self, unit: Tensor) -> Tensor:
        return (unit - self.mean[:, None, None]) / self.std[:, None, None]

    def inverse(self, x: Tensor) -> Tensor:
        return x * self.std[:, None, None] + self.mean[:, None, None]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Standardise:
        return Standardise(self.mean.to(device=device, dtype=dtype), self.std.to(device=device, dtype=dtype))

    def state(self) -> dict[str, Tensor]:
        return {"mean": self.mean.float().cpu(), "std": self.std.float().cpu()}


@dataclass(frozen=True, eq=False)
class ZCA(Preprocess):
    """ZCA whitening x' = (x - mean) W of flattened (C,H,W) images, W = U diag((s + eps)^-1/2) U^T.

    U and s are the eigenvectors and eigenvalues of the unbiased covariance of the training images in [0, 1]
    (Krizhevsky 2009; eps = 0.1 inside the root as in MTT, whose code takes kornia's). ``mean`` is float32
    [D], ``matrix`` float32 [D,D].
    """

    kind: ClassVar[str] = "zca"
    mean: Tensor
    matrix: Tensor
    eps: float = ZCA_EPS

    @classmethod
    def check(cls, dimension: int) -> None:
        """Raise :class:`UserError` if D = C x H x W is too large to whiten."""
        if dimension > ZCA_MAX_DIMENSION:
            raise UserError(
                f"zca of images of {dimension} values is too large (at most {ZCA_MAX_DIMENSION}); "
                "use a smaller size or turn zca off"
            )

    @classmethod
    def fit(cls, images: Tensor, eps: float = ZCA_EPS, progress: Progress = silent) -> ZCA:
        """Fit on uint8 [N,C,H,W] training images, which are streamed through.

        Args:
            images: may be a memory map.
            eps: added to the eigenvalues.
            progress: hears how many images are taken into account.

        Raises:
            UserError: fewer than two images, C x H x W is above 12288, or memory is short.
        """
        dimension = images[0].numel()
        cls.check(dimension)
        remedy = "choose a smaller size, or turn zca off"
        check_memory(f"zca of {dimension} values takes", _ZCA_MATRICES * 8 * dimension**2, remedy)
        if len(images) < 2:
            raise UserError("zca needs at least two training images")
        mean, covariance = _moments(images, progress)
        values, vectors = torch.linalg.eigh(covariance)
        matrix = (vectors * (values.clamp_min(0) + eps).rsqrt()) @ vectors.T
        return cls(mean.float(), matrix.float(), eps)

    @cached_property
    def unwhiten(self) -> Tensor:
        """The inverse of ``matrix`` [D,D]; well conditioned, since eps bounds its eigenvalues."""
        return torch.linalg.inv(self.matrix.double()).to(self.matrix.dtype)

    def __call__(self, unit: Tensor) -> Tensor:
        return ((unit.flatten(1) - self.mean) @ self.matrix).view(unit.shape)

    def inverse(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.unwhiten + self.mean).view(x.shape)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> ZCA:
        return ZCA(
            self.mean.to(device=device, dtype=dtype), self.matrix.to(device=device, dtype=dtype), self.eps
        )

    def state(self) -> dict[str, Tensor]:
        return {
            "mean": self.mean.float().cpu(),
            "matrix": self.matrix.float().cpu(),
            "eps": torch.tensor(self.eps, dtype=torch.float64),
        }


def _moments(images: Tensor, progress: Progress) -> tuple[Tensor, Tensor]:
    """Return mean [D] and unbiased covariance [D, D] of images in [0, 1], float64.

    Blocks of images are centred by the mean of all, so that sums in float32 lose nothing, and are added in
    float64.
    """
    size, what = rows_of(4 * images[0].numel()), "zca: reading images"
    total = torch.zeros(images[0].numel(), dtype=torch.int64)
    for block in images.split(size):
        total += block.flatten(1).sum(0, dtype=torch.int64).cpu()
    mean = total.double() / (255 * len(images))
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for number, block in enumerate(images.split(size)):
        progress(what, number * size, len(images))
        centred = block.cpu().flatten(1).float().div_(255).sub_(mean.float())
        covariance += centred.T @ centred
    progress(what, len(images), len(images))
    return mean, covariance / (len(images) - 1)


def from_state(kind: str, state: Mapping[str, Tensor]) -> Preprocess:
    """Rebuild a map from :meth:`Preprocess.state`.

    Raises:
        UserError: unknown kind, a tensor missing, or tensors that do not fit together.
    """
    keys = {"standardise": ("mean", "std"), "zca": ("mean", "matrix", "eps")}
    if kind not in keys:
        raise unknown("preprocessing", kind, keys)
    missing = [key for key in keys[kind] if key not in state]
    if missing:
        raise UserError(f"the {kind} preprocessing lacks {', '.join(missing)}; the file is incomplete")
    if not all(bool(torch.isfinite(state[key]).all()) for key in keys[kind]):
        raise UserError(f"the {kind} preprocessing holds values that are not finite; the file is damaged")
    mean = state["mean"].float()
    if kind == "standardise":
        std = state["std"].float()
        if mean.ndim != 1 or mean.shape != std.shape or not bool((std > 0).all()):
            raise UserError("the standardise preprocessing needs a mean and a positive std per channel")
        return Standardise(mean, std)
    matrix = state["matrix"].float()
    if mean.ndim != 1 or matrix.shape != (len(mean), len(mean)):
        raise UserError(f"the zca matrix {tuple(matrix.shape)} does not fit its mean {tuple(mean.shape)}")
    return ZCA(mean, matrix, float(state["eps"]))
