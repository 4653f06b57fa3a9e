"""Which labels a set has beside hard ones, in words."""

from __future__ import annotations

from collections.abc import Sequence

from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.distilled_dataset import DistilledDataset


def extra_labels(distilled: DistilledSet | DistilledDataset) -> dict[str, str]:
    """Say which labels a set has beside hard ones, by the name of the attribute that holds them."""
    words = {}
    if distilled.soft_labels is not None:
        words["soft_labels"] = "soft labels"
    if distilled.sample_weights is not None:
        words["sample_weights"] = "weights of images"
    if distilled.targets is not None:
        words["targets"] = f"targets of {distilled.targets.shape[1]} numbers"
    if (views := distilled.views) is not None:
        amount = "a share of the batches" if views.pool else f"{views.epoch_count} epochs"
        mixing = "unmixed" if views.mixing == "none" else views.mixing
        words["views"] = f"{len(views.rows)} views ({amount}, {mixing}, {views.answers.encoding})"
    return words


def left_out(distilled: DistilledSet | DistilledDataset, written: Sequence[str] = ()) -> list[str]:
    """Return a sentence on the labels that an export does not write, if there are any.

    Args:
        written: names of attributes that it writes.
    """
    names = [words for name, words in extra_labels(distilled).items() if name not in written]
    return [f"the {' and '.join(names)} are left out; the .h5 holds them"] if names else []
