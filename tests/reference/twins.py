"""The loss of Barlow Twins number by number, as equations 1 and 2 of the paper have it."""

from __future__ import annotations

from torch import Tensor


def barlow_twins(first: Tensor, second: Tensor, off_diagonal: float) -> Tensor:
    count, width = first.shape
    total = first.new_zeros(())
    for i in range(width):
        for j in range(width):
            a = first[:, i] - sum(first[b, i] for b in range(count)) / count
            b = second[:, j] - sum(second[b, j] for b in range(count)) / count
            products = sum(a[n] * b[n] for n in range(count))
            norms = sum(a[n] ** 2 for n in range(count)) ** 0.5 * sum(b[n] ** 2 for n in range(count)) ** 0.5
            correlation = products / norms
            total = total + ((1 - correlation) ** 2 if i == j else off_diagonal * correlation**2)
    return total
