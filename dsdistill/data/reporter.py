"""What a reader of data reports while it works."""

from __future__ import annotations

from dataclasses import dataclass

from dsdistill.runtime.notice import Notify, Progress, silent


@dataclass(frozen=True)
class Reporter:
    """The callbacks of a reader, silent by default.

    Attributes:
        notify: receives a sentence if images were converted or may not be what the user expects.
        progress: called while images are read one by one: before the first one and after every batch.
    """

    notify: Notify = silent
    progress: Progress = silent
