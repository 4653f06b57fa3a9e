"""The regimes of labels, by where these come from. An accuracy means something else in each.

HL      hard labels: the class of each image
SL      soft labels that a file stores, and whose bytes count: logits of each image, or of views of it
SL+KD   a teacher network labels every batch while the student trains; whoever trains needs that network
"""

from __future__ import annotations

from typing import Literal

Regime = Literal["HL", "SL", "SL+KD"]

REGIMES: dict[str, Regime] = {"hard": "HL", "static": "SL", "views": "SL", "teacher": "SL+KD"}
"""By the source of labels."""


def regimes_of(source: str) -> str:
    """Return the regimes that a source of labels leads to, for people.

    >>> regimes_of("views"), regimes_of("file")
    ('SL', 'SL or HL, as the file')
    """
    return REGIMES.get(source, "SL or HL, as the file")
