"""The number of images that go through a network at once."""

from __future__ import annotations


def equal_chunk(images: int, most: int) -> int:
    """Return the size of chunks of at most ``most`` images, of equal size if possible.

    Compiled code serves one size, and each other size costs a compilation. Chunks have at least half of
    ``most`` images.

    >>> equal_chunk(100, most=30), equal_chunk(7, most=4)
    (25, 4)
    """
    fewest = -(-images // most)
    chunks = next((count for count in range(fewest, 2 * fewest) if images % count == 0), fewest)
    return -(-images // chunks)


def images_per_bytes(limit: int, size: int) -> int:
    """Return how many images, at least 1, have largest maps in a ConvNet of ``limit`` bytes together.

    Args:
        limit: bytes.
        size: height and width of the images.

    >>> images_per_bytes(1 << 24, size=28)
    32
    """
    return max(1, limit // (128 * 4 * (size + 4) ** 2))
