"""What is known of a labelling before its first step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dsdistill.config.options import flatten
from dsdistill.labelling.config import LabellingConfig
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.teachers import Committee


@dataclass(frozen=True, eq=False)
class LabellingStart:
    """What is known before the first step, for a display of the progress."""

    stage: ClassVar[str] = "labelling"
    distilled: DistilledSet
    committee: Committee
    config: LabellingConfig
    total: int
    """Images or views that are labelled."""
    done: int = 0
    """Of them, those that an interrupted labelling has left."""

    @property
    def title(self) -> str:
        """What is labelled."""
        return f"labels of {self.distilled.attributes.get('dataset', 'a set')}"

    def options(self) -> dict[str, Any]:
        """Return every option of the labelling by its dotted key, without folders."""
        return flatten(self.config.shared())

    def describe(self) -> list[str]:
        """Return the labelling in a few sentences."""
        config, images = self.config, self.distilled.decoded_count
        what = f"{images} images"
        if config.kind == "views":
            size = min(config.batch_size, images)
            share = f", {100 * config.keep:g} % of the batches kept," if config.keep < 1 else ""
            what = f"{self.total:,} views of {images} images in batches of {size}{share}"
        device = f"on {self.committee.device}, {self.committee.precision}"
        lines = [f"labelling {what} by {self.committee.name}, mode {self.committee.mode}; {device}"]
        if self.done:
            lines.append(f"resuming after {self.done:,} of {self.total:,} views")
        return lines
