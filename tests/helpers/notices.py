"""A callback that keeps what a call says, by public names only."""

from __future__ import annotations

import dsdistill


class Notices(dsdistill.Callback):
    """Keeps the sentences that a call says."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def on_notice(self, sentence: str) -> None:
        self.sentences.append(sentence)
