"""Baselines: real images under the same protocol, as many as the distilled set stores or as fill some bytes.

``random``, ``herding``, ``k-center``, ``k-means``, ``el2n`` (the hardest images, as published) and
``el2n-easy`` take as many images of each class as the set stores, or all of a class that has fewer. With
``@bytes`` appended they take as many as fit into the bytes that its images and labels have in its file, with
``@SIZE`` as many as fit into a size of one's own: ``@31kB``, or that of float32 images, ``@10ipc``. Where the
images of the set are coded in a few bits, these real images are coded alike.

With ``@steps`` appended there are as many as the set stores, and students train on them for as many steps as
on the set: where its stored images are decoded into more, an epoch of those has more steps.

``full`` takes the full training set: the ceiling. ``coresets`` stands for all of these but random and full,
and ``all`` for every baseline at both sizes. ``whole`` is the former name of ``full``.

Real images have hard labels. With ``+labels`` appended they get labels as the distilled set has them, made by
a teacher in the same way; ``noise+labels`` are images of Gaussian noise with such labels. ``distilled-hard``
is the set itself with hard labels, and ``teacher`` the teacher, which is tested and not trained. These tell
what labels are worth without the images.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable

import h5py
import torch
from torch import Tensor

from dsdistill.config.storage import bytes_of_budget
from dsdistill.data import selection
from dsdistill.data.preprocess import Preprocess
from dsdistill.data.real import RealDataset
from dsdistill.encoding.search import bytes_of
from dsdistill.errors import UserError, unknown
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.images import in_network_space
from dsdistill.evaluation.rows import (
    BYTES,
    DISTILLED_HARD,
    FULL,
    LABELLED,
    NOISE,
    RANDOM,
    STEPS,
    TEACHER,
    canonical,
    size_of,
)
from dsdistill.protocol import Protocol
from dsdistill.seeding import generator
from dsdistill.storage.hdf5 import create
from dsdistill.storage.set_sizes import stored_bytes
from dsdistill.synthetic.coded import Coding, encode

CONTROLS = (NOISE + LABELLED, DISTILLED_HARD, TEACHER)
"""Baselines that are no real images."""

FULL_EPOCHS = 10  # at least, unless the protocol has fewer
_SAMPLE_IMAGES, _SAMPLE_BYTES = 1024, 1 << 24  # more compress as these do
_CHUNK = 4096


def baseline_names() -> list[str]:
    """Return the names of all baselines, without ``@bytes`` and ``@steps``."""
    return sorted({RANDOM, FULL, *selection.BY_FEATURES, *selection.BY_EL2N})


def expanded_names(names: Iterable[str]) -> list[str]:
    """Write out ``all``, ``coresets`` and ``coresets@…``, replace former names and drop repeated ones."""
    coresets = [name for name in baseline_names() if name not in (RANDOM, FULL)]
    single: list[str] = []
    for name in map(canonical, names):
        group, at, size = name.partition("@")
        if group == "coresets":
            single += [coreset + at + size for coreset in coresets]
        elif name == "all":
            equal_bytes = [method + BYTES for method in (RANDOM, *coresets)]
            single += [RANDOM, *coresets, *equal_bytes, FULL]
        else:
            single.append(name)
    return list(dict.fromkeys(single))


def all_names() -> list[str]:
    """Return what `check` and `expanded_names` take, but for sizes of one's own and endings ``+labels``."""
    plain = [name for name in (*baseline_names(), "coresets") if name != FULL]
    return [*plain, *(name + like for like in (BYTES, STEPS) for name in plain), FULL, "all"]


def check(name: str) -> None:
    """Raise a UserError, with the nearest name, unless ``name`` is a baseline."""
    if name in CONTROLS:
        return
    method, at, size = name.removesuffix(LABELLED).partition("@")
    if at and method in (FULL, "all"):
        raise UserError(f"baseline {method!r} takes no number of bytes or steps; drop '@{size}'")
    if method == NOISE:
        raise UserError(f"noise has labels from a teacher or none; the baseline is called {NOISE + LABELLED}")
    if method not in baseline_names():
        raise unknown("baseline", method, [*baseline_names(), *CONTROLS, "coresets", "all"])
    if not at or at + size in (BYTES, STEPS):
        return
    if not size[:1].isdigit():
        raise unknown("ending of a baseline", at + size, [BYTES, STEPS, "@10ipc", "@31kB"])
    try:
        bytes_of_budget(size, 4, 1)
    except UserError as error:
        raise UserError(f"baseline {name!r}: {error}") from error


def method_of(name: str) -> str:
    """Return the selection method of a baseline: its name without ``@bytes`` and the like and ``+labels``."""
    return name.removesuffix(LABELLED).partition("@")[0]


def needs_teacher(name: str) -> bool:
    """Whether a teacher labels the images of a baseline, or is the baseline."""
    return name == TEACHER or name.endswith(LABELLED)


def default_names(soft: bool, teacher: bool, more_steps: bool) -> list[str]:
    """Return the baselines of an evaluation that names none.

    Args:
        soft: whether students of the set learn from soft labels.
        teacher: whether a teacher is at hand.
        more_steps: whether students of the set take more steps than those of as many real images.
    """
    random = [RANDOM, RANDOM + STEPS] if more_steps else [RANDOM]
    if not soft:
        return random
    if not teacher:
        return [*random, DISTILLED_HARD]
    return [*random, *(name + LABELLED for name in random), *CONTROLS]


def counts_of(name: str, real: RealDataset, stored: Tensor, real_images: int | None) -> Tensor:
    """Return how many images of each class a baseline takes, int64 [K].

    Args:
        stored: int64 [K], images of each class in the distilled set.
        real_images: how many real images take the bytes it names; None for a set from no file. They are
            shared out equally, the remainder to the first classes: at least one per class. What a class has
            too few of, others take.

    Raises:
        UserError: the name is unknown, or ``real_images`` is needed and None.
    """
    check(name)
    if method_of(name) == NOISE:
        return stored
    if method_of(name) == FULL:
        return real.counts
    if not size_of(name):
        return stored.minimum(real.counts)
    if real_images is None:
        raise UserError(
            f"baseline {name!r} needs the bytes of a set's file; evaluate a set that is stored in one"
        )
    return _dealt(max(real_images, len(stored)), real.counts)


def _dealt(images: int, available: Tensor) -> Tensor:
    """Deal images to classes equally, the remainder to the first; what a small class lacks, others take.

    >>> _dealt(8, torch.tensor([9, 1, 9])).tolist()
    [4, 1, 3]

    Args:
        available: int64 [K], of each class.
    """
    counts = torch.zeros_like(available)
    while left := min(images, int(available.sum())) - int(counts.sum()):
        open_classes = (counts < available).nonzero().flatten()
        share, remainder = divmod(left, len(open_classes))
        counts[open_classes] += share + (torch.arange(len(open_classes)) < remainder).long()
        counts = counts.minimum(available)
    return counts


def images_in_bytes(real: RealDataset, size: int, seed: int, coding: Coding | None = None) -> int:
    """Return how many real images fit into ``size`` bytes.

    So many of a random sample do, compressed as the images of a distilled set are. Images that are chosen by
    other means compress a little better or worse: a row says what its own take.

    Args:
        coding: of the set; None for 8 bits a pixel, as real images have.
    """
    most = max(1, min(_SAMPLE_IMAGES, _SAMPLE_BYTES // real.images[0].numel(), len(real)))
    rows = torch.randperm(len(real), generator=generator(seed, "baseline-bytes"))[:most]
    whole = _bytes_of(real, rows, coding)
    if whole <= size:
        return size * most // whole
    fitting = 0
    while most - fitting > 1:  # few images compress less well than many
        between = (fitting + most) // 2
        if _bytes_of(real, rows[:between], coding) <= size:
            fitting = between
        else:
            most = between
    return fitting


def images_filling(
    names: Iterable[str], real: RealDataset, seed: int, coding: Coding | None
) -> dict[str, int]:
    """Return how many real images fit into the sizes that baselines name, by those sizes; see above.

    Raises:
        UserError: fewer than one of each class.
    """
    classes, pixel_bytes = len(real.counts), 4 * real.images[0].numel()
    numbers = {}
    for size in {size_of(name) for name in names} - {"", size_of(BYTES)}:
        budget = bytes_of_budget(size, pixel_bytes, classes)
        numbers[size] = images_in_bytes(real, budget, seed, coding)
        if numbers[size] < classes:
            raise UserError(
                f"baselines @{size}: {budget:,} bytes hold {numbers[size]} images of {real.name}, which has "
                f"{classes} classes; name more bytes"
            )
    return numbers


def _bytes_of(real: RealDataset, rows: Tensor, coding: Coding | None) -> int:
    """Return the bytes of some real images in a file."""
    if coding is not None:
        return bytes_of(encode(real.unit(rows), coding))
    with h5py.File(io.BytesIO(), "w") as file:
        return stored_bytes(create(file, "images", real.images[rows].numpy()))


def training_sets(
    name: str,
    real: RealDataset,
    counts: Tensor,
    positions: Tensor | None,
    preprocess: Preprocess,
    seed: int,
    coding: Coding | None = None,
) -> Callable[[int], TrainingSet]:
    """Return a function from a repeat to its training set: a baseline's images and their hard labels.

    Random images and noise are drawn anew for every repeat, so that the spread covers the selection as well
    as the student's initial weights. Every other baseline returns the same object for every repeat. Random
    images with and without a teacher's labels are the same ones, for as many epochs or as many steps. Noise
    is standard normal in network space.

    Args:
        counts: int64 [K], images of each class.
        positions: int64 positions in ``real`` of the images that networks chose; None for random and full.
        preprocess: that of the distilled set, on the CPU.
        coding: of images that are as many as fit into some bytes; None where they stay as they are.
    """
    coding = coding if size_of(name) else None
    stream = f"baseline/{name.removesuffix(LABELLED).removesuffix(STEPS)}"

    @functools.cache
    def fixed() -> TrainingSet:
        return _preprocessed(real, positions, preprocess, coding)

    def drawn(repeat: int) -> TrainingSet:
        draw = generator(seed, stream, repeat)
        return _preprocessed(real, selection.random_selection(real, counts, draw), preprocess, coding)

    def noise(repeat: int) -> TrainingSet:
        draw = generator(seed, f"baseline/{NOISE}", repeat)
        labels = torch.arange(len(counts)).repeat_interleave(counts)
        return TrainingSet(torch.randn(len(labels), *real.images.shape[1:], generator=draw), labels)

    by_repeat = {RANDOM: drawn, NOISE: noise}
    return by_repeat.get(method_of(name), lambda repeat: fixed())


def full_protocol(protocol: Protocol, images: int, others: Iterable[int]) -> Protocol:
    """Return how students train on the full training set: as on the other sets, for fewer epochs.

    Those are the fewest in which a student takes no fewer steps than on the largest other set: at least
    ``FULL_EPOCHS``, at most the protocol's. Rates and shares of the schedule stay. So ``full`` is the ceiling
    of such a training, not of one to convergence: a protocol's epochs would take days on a CPU.

    Args:
        images: of the full training set.
        others: training images of the other sets.
    """
    most = max(protocol.steps(size) for size in others)
    enough = -(-most // protocol.batches(images))
    return protocol.lasting(min(protocol.epochs, max(FULL_EPOCHS, enough)))


def stretched_protocol(protocol: Protocol, images: int, wanted: int) -> Protocol:
    """Return how students train on fewer images for as many steps as on the set, rounded up to whole epochs.

    Args:
        images: that they train on.
        wanted: steps of a student of the set.
    """
    epochs_run = -(-wanted // protocol.batches(images))
    return protocol.lasting(max(protocol.epochs, epochs_run - (protocol.epochs_run - protocol.epochs)))


def _preprocessed(
    real: RealDataset, rows: Tensor | None, preprocess: Preprocess, coding: Coding | None
) -> TrainingSet:
    """Return the training set of some real images, or of all."""
    if rows is None:
        everything = torch.arange(len(real))
        return TrainingSet(in_network_space(real, None, preprocess), real.labels, real_rows=everything)
    if coding is None:
        images, size = in_network_space(real, rows, preprocess), _bytes_of_many(real, rows)
    else:
        coded, order = encode(real.unit(rows), coding), torch.arange(len(rows))
        images = torch.cat([preprocess(coded[part].decode()) for part in order.split(_CHUNK)])
        size = float(bytes_of(coded))
    return TrainingSet(images, real.labels[rows], real_rows=rows, image_bytes=size)


def _bytes_of_many(real: RealDataset, rows: Tensor) -> float:
    """Return the bytes of real images in 8 bits a pixel in a file; of very many, by a sample of them."""
    some = rows[:: -(-len(rows) * real.images[0].numel() // _SAMPLE_BYTES)]
    return _bytes_of(real, some, None) * len(rows) / len(some)
