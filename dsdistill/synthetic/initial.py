"""Initialise the synthetic images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from dsdistill import seeding
from dsdistill.config.ipc import counts_of
from dsdistill.data.real import RealDataset, Task
from dsdistill.data.selection import few_enough, k_means, mini_batch
from dsdistill.errors import UserError
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation, mosaic, stitched
from dsdistill.synthetic.patches import PatchConfig, PatchSelection
from dsdistill.synthetic.set import ANCHORS, Space, SyntheticSet
from dsdistill.synthetic.trained import TrainedNetworks

Embed = Callable[[Tensor], Tensor]

Init = Literal["real", "noise", "kmeans", "mix", "correct", "representative", "patches", "clusters"]


_TILED = ("mix", "clusters")
"""Starts that fill the tiles of a multi-formation with an image each."""

_RDED = PatchConfig()


def initialise(
    task: Task,
    real: RealDataset,
    ipc: int | Sequence[int],
    init: Init,
    space: Space,
    seed: int,
    multi_formation: MultiFormation = IDENTITY,
    teacher: TrainedNetworks | None = None,
    patches: PatchConfig = _RDED,
    anchored: bool = False,
    embed: Embed | None = None,
    candidates: int = 0,
) -> SyntheticSet:
    """Build the synthetic set that a run starts from.

    Args:
        task: the task to distil.
        real: the training images.
        ipc: stored images of a class, at least 1; one number for all, or one for each. Where a class has
            fewer images than are to be copied, they are repeated, with a little noise: equal images would
            stay equal where means are matched.
        init: "real" copies random images of the class; "kmeans" copies the real image nearest to each of as
            many k-means centres of the class's pixels, "representative" of the logits of the first
            teacher network (AST); "correct" copies random images that a teacher network classifies
            correctly (DATM); "noise" draws N(0, 1) in network space, or N(0.5, 0.25²) clamped to [0, 1] in
            unit space; "mix" (IDC) fills the tiles of each image with random images of the class, shrunk,
            ``multi_formation.factor**2`` for each (IDC's code takes the first ones of the class instead). At
            factor 1 "mix" is "real". "clusters" (DREAM) fills the tiles as "mix" does, with the image nearest
            to each of as many k-means centres of what ``embed`` makes of the class. "patches" puts crops or
            whole images side by side that the first teacher network chooses (RDED, CIM, NRR-DD): see
            `PatchConfig`. It repeats no image.
        space: pixel space of the learnable images.
        seed: of the run; this function draws from its stream "init".
        multi_formation: how stored images become training images.
        teacher: the trained networks, for "correct", "representative" and "patches".
        patches: the options of "patches".
        anchored: keep the real images among the set's constants, as `ANCHORS`.
        embed: for "clusters": images [n, C, H, W] in network space to features [n, D].
        candidates: random images of a class that "kmeans", "clusters" and "representative" cluster, or as
            many as are needed of them; 0 clusters the class.

    Raises:
        UserError: the IPC is below 1, or makes more images than there are real ones; a class has no images;
            the multi-formation does not fit the image size; there is no teacher where one is needed; a class
            is too small for patches; or decoded images start from no real ones, and are to be anchored.
    """
    multi_formation.check(task.size)
    counts = counts_of(ipc, task.num_classes)
    if min(counts) < 1:
        raise UserError(f"IPC must be at least 1, not {min(counts)}; pass --ipc 1 or more")
    if not real.counts.all():
        empty = task.classes[int(real.counts.argmin())]
        raise UserError(f"class {empty!r} of {task.name} has no training images; add some, or leave it out")
    if sum(counts) > len(real):
        raise UserError(
            f"the set would have {sum(counts)} images, more than the {len(real)} training images of "
            f"{task.name}; choose a smaller --ipc"
        )
    if anchored:
        check_anchors(init, multi_formation, patches)
    if init == "noise":
        shape = (sum(counts), *task.shape)
        images = torch.randn(shape, generator=seeding.generator(seed, "init"))
        if space == "unit":
            images = (images / 4 + 0.5).clamp(0, 1)
        return SyntheticSet(images, counts, space, task.preprocess, multi_formation)
    if init == "patches":
        selection = PatchSelection(task, real, patches, seed, _teacher(init, teacher))
        needed = patches.needed(counts)
        patches.check_classes(real, needed)
        starts = _patches(selection, needed, patches.grid)
    else:
        select = _selection(init, real, task, seed, teacher, embed, candidates)
        needed = images_to_start_from(counts, init, multi_formation)
        starts = _copies(real, select, needed, seed, multi_formation.factor if init in _TILED else 1)
    stored: list[Tensor] = []
    anchors: list[Tensor] = []
    for images, originals in starts:
        stored.append(images)
        if anchored:
            anchors.append(images if multi_formation.is_identity else originals())
    images = torch.cat(stored)
    if space == "network":
        images = task.preprocess(images)
    synthetic = SyntheticSet(images.contiguous(), counts, space, task.preprocess, multi_formation)
    if anchored:
        synthetic.constants[ANCHORS] = task.preprocess(torch.cat(anchors))
    return synthetic


def check_anchors(init: Init, multi_formation: MultiFormation, patches: PatchConfig) -> None:
    """Check that each decoded image starts from one real image.

    Raises:
        UserError: it does not.
    """
    if init == "noise":
        raise UserError(
            "images that start from noise have no real images to be paired with: set init=patches"
        )
    factor = multi_formation.factor
    tiles = patches.grid if init == "patches" else factor if init in _TILED else 1
    paired = tiles == factor
    if factor > 1 and not (paired and multi_formation.mode == "single"):
        raise UserError(
            "decoded images are to be paired with the real images they start from, and these are others: set "
            f"init=patches with patches.grid={factor} and multi_formation.mode=single"
        )


Start = tuple[Tensor, Callable[[], Tensor]]
"""The images to store of a class, and what returns the real images that are in their tiles, in full size."""


def _patches(selection: PatchSelection, needed: Sequence[int], grid: int) -> Iterator[Start]:
    """Yield the start of each class from chosen patches."""
    for label, number in enumerate(needed):
        chosen = selection.choose(label, number)
        yield stitched(selection.cells(chosen), grid), partial(selection.originals, chosen)


def _copies(
    real: RealDataset, select: Select, needed: Sequence[int], seed: int, tiles: int
) -> Iterator[Start]:
    """Yield the start of each class from selected images, repeated where they are too few."""
    for label, number in enumerate(needed):
        images = _repeated(real, select(label, min(number, int(real.counts[label]))), number, seed)
        yield mosaic(images, tiles) if tiles > 1 else images, partial(torch.clone, images)


def images_to_start_from(counts: Sequence[int], init: str, multi_formation: MultiFormation) -> list[int]:
    """Return how many real images of each class are copied into ``counts`` stored ones; not for noise."""
    factor = multi_formation.factor if init in _TILED else 1
    return [count * factor**2 for count in counts]


def _repeated(real: RealDataset, selected: Tensor, count: int, seed: int) -> Tensor:
    """Return ``count`` images of a class in unit space: those selected, then copies of them with noise."""
    images = real.unit(selected[torch.arange(count) % len(selected)])
    if count > len(selected):
        stream = seeding.generator(seed, "init-repeated", int(real.labels[selected[0]]))
        copies = images[len(selected) :]
        noise = _REPEAT_NOISE * torch.randn(copies.shape, generator=stream)
        copies.add_(noise).clamp_(0, 1)
    return images


_REPEAT_NOISE = 0.05  # of the range of a pixel


def _teacher(init: Init, teacher: TrainedNetworks | None) -> TrainedNetworks:
    """Return the trained networks to choose by.

    Raises:
        UserError: there are none.
    """
    if teacher is None:
        raise UserError(
            f"init={init} chooses images by trained networks, and this method has none: set init=real, or "
            "use a method that follows experts"
        )
    return teacher


Select = Callable[[int, int], Tensor]
"""Selects from a class: (label, count) -> int64 [count] positions among the real images."""


def _selection(
    init: Init,
    real: RealDataset,
    task: Task,
    seed: int,
    teacher: TrainedNetworks | None,
    embed: Embed | None,
    candidates: int,
) -> Select:
    """Return the selection from a class."""

    def shuffled(label: int) -> Tensor:
        members = real.indices_of(label)
        return members[torch.randperm(len(members), generator=seeding.generator(seed, "init", label))]

    def some(label: int, count: int) -> Tensor:
        return shuffled(label)[:count]

    def clustered(label: int, count: int) -> Tensor:
        return some(label, max(candidates, count)).sort().values if candidates else real.indices_of(label)

    def near_centres(label: int, points: Tensor, count: int, rows: Tensor) -> Tensor:
        fit = partial(mini_batch, seed=seeding.derive(seed, "init", label) % 2**32)
        return rows[k_means(points, count, fit)]

    def by_pixels(label: int, count: int) -> Tensor:
        stream = seeding.generator(seed, "init-clustered", label)
        rows = few_enough(clustered(label, count), real.images[0].numel(), stream)
        return near_centres(label, real.unit(rows).flatten(1), count, rows)

    def by_features(label: int, count: int) -> Tensor:
        if embed is None:
            raise UserError("init=clusters chooses images by a network: pass embed, or choose init=kmeans")
        rows = clustered(label, count)
        parts = [embed(task.preprocess(real.unit(part))).cpu() for part in rows.split(_CHUNK)]
        return near_centres(label, torch.cat(parts), count, rows)

    if init not in ("correct", "representative"):
        return {"kmeans": by_pixels, "clusters": by_features}.get(init, some)
    known = _teacher(init, teacher)

    def logits(network: int, rows: Tensor) -> Tensor:
        parts = [known.logits(network, task.preprocess(real.unit(part))) for part in rows.split(_CHUNK)]
        return torch.cat(parts)

    def representative(label: int, count: int) -> Tensor:
        rows = clustered(label, count)
        return near_centres(label, logits(0, rows), count, rows)

    def correct(label: int, count: int) -> Tensor:
        """Classify a shuffled class with one network after another, until enough images are correct."""
        left, selected = shuffled(label), torch.empty(0, dtype=torch.int64)
        for network in range(known.count):
            for part in left.split(_CHUNK):
                right = part[logits(network, part).argmax(1) == label]
                selected = torch.cat([selected, right])[:count]
                if len(selected) == count:
                    return selected
            left = left[~torch.isin(left, selected)]
        return torch.cat([selected, left])[:count]  # too few are classified correctly: fill up at random

    return representative if init == "representative" else correct


_CHUNK = 256  # images that a network classifies at once
