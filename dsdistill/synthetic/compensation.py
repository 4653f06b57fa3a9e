"""Compensators: a learned image that is added to the images of all classes.

After Zhang et al., "Breaking Class Barriers: Efficient Dataset Distillation via Inter-Class Feature
Compensator" (INFER, ICLR 2025). Each class has K images, its naturals. For teacher m of M and natural number
k of every class there is one compensator; it counts as one stored image, whatever the number of classes. So
K·M compensators turn the K naturals of each class into K(M + 1) training images: first the naturals, then
those of the first teacher, and so on. Training image t of a class is natural t mod K, with compensator
t - K from t = K on.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from dsdistill.errors import UserError


def naturals_within(ipc: int, teachers: int, classes: int) -> int:
    """Return the largest number of naturals of a class that fit, with their compensators, into an IPC.

    Args:
        ipc: stored images per class, on average.
        teachers: compensators of each natural.
        classes: which share the compensators.

    Raises:
        UserError: none fits.

    >>> naturals_within(10, 4, 10), naturals_within(50, 4, 10), naturals_within(10, 4, 100)
    (7, 35, 9)
    """
    naturals = ipc * classes // (classes + teachers)
    if not naturals:
        raise UserError(
            f"IPC {ipc} has no room for the compensators of {teachers} teachers in {classes} classes: pass "
            f"--ipc {ipc_of(1, teachers, classes)} or more"
        )
    return naturals


def ipc_of(naturals: int, teachers: int, classes: int) -> int:
    """Return the smallest IPC in which so many naturals of a class fit: see `naturals_within`.

    >>> ipc_of(7, 4, 10), naturals_within(ipc_of(7, 4, 10), 4, 10)
    (10, 7)
    """
    return -(-naturals * (classes + teachers) // classes)


def shared_out(count: int, classes: int) -> Tensor:
    """Return how many of ``count`` images count for each class, int64 [classes]: the first get the remainder.

    >>> shared_out(7, 3)
    tensor([3, 2, 2])
    """
    share, remainder = divmod(count, classes)
    return share + (torch.arange(classes) < remainder).long()


def compensated(naturals: Tensor, compensators: Tensor) -> Tensor:
    """Return the training images of some classes; differentiable, and not clamped.

    Args:
        naturals: float [..., K, C, H, W], the naturals of each class.
        compensators: float [K·M, C, H, W], those of the first teacher first.

    Returns:
        [..., K(M + 1), C, H, W]
    """
    count = naturals.shape[-4]
    sums = naturals.unsqueeze(-5) + compensators.unflatten(0, (-1, count))
    return torch.cat([naturals, sums.flatten(-5, -4)], -4)


def digest(compensators: Tensor) -> str:
    """Return 64 hexadecimal digits that identify compensators float32 [n, C, H, W]."""
    return hashlib.sha256(compensators.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
