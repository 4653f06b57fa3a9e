"""How many images a set stores, which the IPC says, and what learning compensators asks of a run."""

from __future__ import annotations

from dsdistill.config.ipc import counts_of
from dsdistill.distillation.config import RunConfig
from dsdistill.errors import UserError
from dsdistill.synthetic.compensation import naturals_within
from dsdistill.synthetic.set import SyntheticSet


def stored_counts(config: RunConfig, classes: int, teachers: int) -> tuple[int, ...]:
    """Return the stored images of each class; of a set with compensators, those beside them.

    Args:
        config: its IPC is decided.
        classes: of the data.
        teachers: how many the method has, each with compensators of its own.

    Raises:
        UserError: there are to be compensators, and the IPC has no room for them, or is not one for all
            classes.
    """
    counts = counts_of(config.ipc, classes)
    if config.synthetic.learn != "compensators":
        return counts
    if len(set(counts)) > 1:
        raise UserError("compensators are shared by all classes, which all have one IPC: pass --ipc N")
    return (naturals_within(counts[0], teachers, classes),) * classes


def begin_learning(config: RunConfig, synthetic: SyntheticSet, teachers: int) -> None:
    """Add to a set what is learned in place of its images, if anything is.

    Args:
        teachers: as for `stored_counts`.
    """
    if config.synthetic.learn == "residual":
        synthetic.learn_residual()
    elif config.synthetic.learn == "compensators":
        synthetic.learn_compensators(teachers)


def stored_words(synthetic: SyntheticSet) -> str:
    """Say what a set stores, for people."""
    count = len(synthetic.images)
    if synthetic.compensators is None:
        return f"{count} synthetic images"
    decoded = sum(synthetic.decoded_counts)
    return f"{count} images and {len(synthetic.compensators)} compensators, {decoded} training images"
