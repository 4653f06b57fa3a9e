"""What a run starts from, as its options say: real images, noise, or the file of a set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from dsdistill.config.initial_names import is_set_file
from dsdistill.config.ipc import as_words, decided
from dsdistill.config.unlabelled import check_labelled
from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation.config import RunConfig
from dsdistill.distillation.stored import stored_counts
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.seeding import forked
from dsdistill.storage import set_file
from dsdistill.storage.set_description import describe
from dsdistill.synthetic.compensation import ipc_of
from dsdistill.synthetic.from_set import from_set
from dsdistill.synthetic.initial import Embed, Init, check_anchors, initialise
from dsdistill.synthetic.set import SyntheticSet
from dsdistill.synthetic.trained import TrainedNetworks


def resolved(config: RunConfig) -> RunConfig:
    """Write down which set the run starts from, if it starts from one, and the multi-formation of that.

    Raises:
        UserError: its file cannot be read, or holds another set than the one written down.
    """
    if not is_set_file(config.init):
        return config
    description = describe(config.init)
    if config.init_digest not in ("", description.digest):
        raise UserError(
            f"{config.init} holds another set (digest {description.digest[:16]}) than the one this run was "
            f"started from ({config.init_digest[:16]}): put that back, or start anew, with --set "
            "init_digest= where a config is replayed"
        )
    return dataclasses.replace(
        config, init_digest=description.digest, multi_formation=description.multi_formation
    )


_BY_CLASS = ("correct", "representative", "patches")
"""Starts whose images a classifier chooses."""


def check_data(config: RunConfig, real: RealDataset) -> None:
    """Check that the training images have the labels that a run needs, and whatever else its engine asks for.

    Raises:
        UserError: they do not.
    """
    remedy = "take data with labels, or a method such as krr-st that does without"
    if config.engine.needs_labels:
        name = Path(config.method).stem
        check_labelled(real.classes, real.name, f"method {name!r} goes by the classes of images", remedy)
    if config.init in _BY_CLASS:
        need = f"init={config.init} chooses images by their classes"
        check_labelled(real.classes, real.name, need, "set init=real")
    config.engine.check_data(real)


def check(config: RunConfig, real: RealDataset, teachers: int) -> None:
    """Check what depends on the data alone, before networks are trained for a run.

    Args:
        real: the training images.
        teachers: how many networks the run will have.

    Raises:
        UserError: the IPC does not fit the classes or has no room for compensators; classes are too small for
            the engine, or options contradict it; or the images that the run starts from do not fit into a
            grid, are too few, or have no real ones to be paired with.
    """
    check_data(config, real)
    config = dataclasses.replace(config, ipc=decided(config.ipc, real.classes))
    counts = stored_counts(config, len(real.classes), teachers)
    config.engine.check_options(config.synthetic.learn, bool(config.synthetic.flip), config.multi_formation)
    config.engine.check_count(teachers)
    _check_paired(config)
    if config.init == "patches":
        config.patches.check_size(real.images.shape[-1])
        config.patches.check_classes(real, config.patches.needed(counts))


def _check_paired(config: RunConfig) -> None:
    """Check that decoded images start from real ones, if the engine compares them.

    Raises:
        UserError: they do not.
    """
    if not config.engine.anchored:
        return
    if is_set_file(config.init):
        raise UserError(
            f"the images of {Path(config.init).name} have no real images to be paired with: set "
            "init=patches, or engine.target.kind=cross-entropy"
        )
    check_anchors(cast("Init", config.init), config.multi_formation, config.patches)


def _random_network(config: RunConfig, task: Task, device: torch.device) -> Embed:
    """Return the features of an untrained network of the run's architecture.

    Raises:
        UserError: there are several, or it cannot take such images.
    """
    with forked(config.seed, "init-network"):
        network = build_network(config.network, task.channels, task.size, task.num_classes)
    network.to(device).requires_grad_(False).eval()
    return lambda images: network.embed(images.to(device))


def build(
    config: RunConfig,
    task: Task,
    real: RealDataset,
    counts: Sequence[int],
    teachers: TrainedNetworks | None,
    device: torch.device,
) -> SyntheticSet:
    """Build the synthetic set.

    Args:
        config: resolved.
        task, real: the training images.
        counts: stored images of each class.
        teachers: trained networks to choose images by, if the method has some.
        device: where a network computes that images are chosen by.

    Raises:
        UserError: as `initialise` or `from_set`; or images are to be paired with real ones, and have none.
    """
    _check_paired(config)
    if not is_set_file(config.init):
        return initialise(
            task,
            real,
            counts,
            cast("Init", config.init),
            config.space,
            config.seed,
            config.multi_formation,
            teachers,
            config.patches,
            config.engine.anchored,
            _random_network(config, task, device) if config.init == "clusters" else None,
            config.init_candidates,
        )
    name = Path(config.init).name
    distilled = set_file.read(config.init)
    naturals = len(distilled.images) // task.num_classes
    if config.synthetic.learn == "compensators" and teachers and counts[0] != naturals:
        raise UserError(
            f"{name} has {naturals} images per class, and IPC {as_words(config.ipc)} leaves {counts[0]} "
            f"beside compensators: pass --ipc {ipc_of(naturals, teachers.count, task.num_classes)}"
        )
    return from_set(task, distilled, counts, config.space, name)
