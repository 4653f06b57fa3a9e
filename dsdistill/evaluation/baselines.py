"""What a distilled set has to beat: real images under the same protocol, as many or as many bytes of them.

``random``, ``herding``, ``k-center``, ``k-means``, ``el2n`` (the hardest images, as published) and
``el2n-easy`` take as many images of each class as the set stores. With ``@bytes`` appended they take as many
as fit into the bytes that its images and labels have in its file. ``whole`` takes them all: the ceiling.
``coresets`` stands for all that are neither random nor whole, and ``all`` for everything, at either size.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable, Iterable, Mapping

import h5py
import torch
from torch import Tensor

from dsdistill.data import selection
from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError, unknown
from dsdistill.evaluation.students import TrainingSet, steps
from dsdistill.protocol import Protocol
from dsdistill.seeding import generator
from dsdistill.storage.hdf5 import create

RANDOM, WHOLE = "random", "whole"
WHOLE_EPOCHS = 10  # at least, unless the protocol has fewer
_SAMPLE_IMAGES, _SAMPLE_BYTES = 1024, 1 << 24
_CHUNK = 4096


def baseline_names() -> list[str]:
    """Return the baselines there are, without ``@bytes``."""
    return sorted({RANDOM, WHOLE, *selection.BY_FEATURES, *selection.BY_EL2N})


def expanded(names: Iterable[str]) -> list[str]:
    """Write out ``coresets``, ``coresets@bytes`` and ``all``; each name comes once."""
    coresets = [name for name in baseline_names() if name not in (RANDOM, WHOLE)]
    found = list[str]()
    for name in names:
        group, at, suffix = name.partition("@")
        if group == "coresets":
            found += [each + at + suffix for each in coresets]
        elif name == "all":
            found += [RANDOM, *coresets, *(f"{each}@bytes" for each in (RANDOM, *coresets)), WHOLE]
        else:
            found.append(name)
    return list(dict.fromkeys(found))


def check(name: str) -> None:
    """Raise a UserError, with the nearest name, unless ``name`` is a baseline."""
    method, at, suffix = name.partition("@")
    if at and method in (WHOLE, "all"):
        raise UserError(f"baseline {method!r} goes with no number of bytes; drop '@{suffix}'")
    if method not in baseline_names():
        raise unknown("baseline", method, [*baseline_names(), "coresets", "all"])
    if at and suffix != "bytes":
        raise unknown("size of a baseline", f"@{suffix}", ["@bytes"])


def method_of(name: str) -> str:
    """Return how a baseline's images are chosen."""
    return name.partition("@")[0]


def counts_of(name: str, real: RealDataset, stored: Tensor, affordable: int | None) -> Tensor:
    """Return how many images of each class a baseline takes, int64 [K].

    Args:
        stored: int64 [K], what the distilled set stores.
        affordable: real images for the bytes of the set; None for a set from no file. They are shared out
            equally, what remains to the first classes: at least one a class, at most what there is.

    Raises:
        UserError: the name is unknown, a class has fewer images than ``stored`` or the bytes are not known.
    """
    check(name)
    if name == WHOLE:
        return real.counts
    if "@" not in name:
        selection.check_counts(real, stored)
        return stored
    if affordable is None:
        raise UserError(f"baseline {name!r} needs the bytes of a set's file; judge a set that is stored")
    each, more = divmod(affordable, len(stored))
    return (each + (torch.arange(len(stored)) < more).long()).clamp(min=1).minimum(real.counts)


def affordable(real: RealDataset, size: int, seed: int) -> int:
    """Return how many real images are stored in ``size`` bytes.

    A random sample of them is compressed as a distilled set of 8-bit images is.
    """
    count = max(1, min(_SAMPLE_IMAGES, _SAMPLE_BYTES // real.images[0].numel(), len(real)))
    rows = torch.randperm(len(real), generator=generator(seed, "baseline-bytes"))[:count]
    with h5py.File(io.BytesIO(), "w") as file:
        used = create(file, "images", real.images[rows].numpy()).id.get_storage_size()
    return size * count // used


def training_sets(
    name: str, real: RealDataset, counts: Tensor, chosen: Tensor | None, preprocess: Preprocess, seed: int
) -> Callable[[int], TrainingSet]:
    """Return what gives the training set of a repeat: a baseline's images and their hard labels.

    Random ones are drawn afresh for every repeat, so that their spread covers the selection as well as the
    student's initial weights. All others are the same object for every repeat.

    Args:
        counts: int64 [K], images of each class.
        chosen: int64 positions in ``real``, where networks chose them; None for random images, and for all.
        preprocess: that of the distilled set, on the CPU.
    """

    @functools.cache
    def fixed() -> TrainingSet:
        rows = torch.arange(len(real)) if chosen is None else chosen
        return _prepared(real, rows, preprocess)

    def drawn(repeat: int) -> TrainingSet:
        draw = generator(seed, f"baseline/{name}", repeat)
        return _prepared(real, selection.random_selection(real, counts, draw), preprocess)

    return drawn if method_of(name) == RANDOM else lambda repeat: fixed()


def _prepared(real: RealDataset, rows: Tensor, preprocess: Preprocess) -> TrainingSet:
    images = torch.cat([preprocess(real.unit(part)) for part in rows.split(_CHUNK)])
    return images, real.labels[rows]


def choosing(counts: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """Return method and counts of those baselines whose images networks choose; see ``Selector.choose``."""
    asked = {name: (method_of(name), each) for name, each in counts.items()}
    return {name: each for name, each in asked.items() if each[0] not in (RANDOM, WHOLE)}


def protocols(protocol: Protocol, sizes: Mapping[str, int]) -> dict[str, Protocol]:
    """Return how students train on each set: alike, but for the epochs on all real images.

    Those are the fewest in which a student takes no fewer steps than on the largest other set: at least
    ``WHOLE_EPOCHS``, at most the protocol's. Rates and shares of the schedule stay. So ``whole`` is the
    ceiling of such a training, not of one to convergence: a protocol's epochs would take days on a CPU.

    Args:
        sizes: training images by set, with "distilled" among them.
    """
    found = dict.fromkeys(sizes, protocol)
    if WHOLE in sizes:
        most = max(steps(protocol, size) for name, size in sizes.items() if name != WHOLE)
        enough = -(-most // -(-sizes[WHOLE] // protocol.batch_size))
        found[WHOLE] = dataclasses.replace(protocol, epochs=min(protocol.epochs, max(WHOLE_EPOCHS, enough)))
    return found
