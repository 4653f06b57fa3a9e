"""How many images go through a network at once."""

from __future__ import annotations


def equal_chunk(images: int, most: int) -> int:
    """Return the size of the parts, equal ones if possible, that so many images are best split into.

    Compiled code serves one size, and each other costs a compilation; parts are at least half of ``most``.
    """
    fewest = -(-images // most)
    parts = next((each for each in range(fewest, 2 * fewest) if images % each == 0), fewest)
    return -(-images // parts)


def images_per_bytes(limit: int, size: int) -> int:
    """Return how many images, 1 at least, have largest maps of a ConvNet of ``limit`` bytes together.

    Args:
        limit: bytes.
        size: height and width of the images.
    """
    return max(1, limit // (128 * 4 * (size + 4) ** 2))
