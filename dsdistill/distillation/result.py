"""From a finished loop to the set that it made, with its provenance."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.nn.functional as F

from dsdistill.config.options import as_toml
from dsdistill.config.sharing import shared
from dsdistill.config.sizes import as_attribute
from dsdistill.config.storage import CodingConfig
from dsdistill.data.real import RealDataset
from dsdistill.distillation import config as configs
from dsdistill.distillation.config import RunConfig
from dsdistill.distillation.loop import Distiller
from dsdistill.encoding.encode import encoded
from dsdistill.errors import UserError
from dsdistill.runtime import provenance
from dsdistill.storage.set_schema import as_stored
from dsdistill.synthetic.distilled import DistilledSet, Scalar


def distilled_set(
    config: RunConfig, distiller: Distiller, real: RealDataset, seconds: float, peak_memory: int
) -> DistilledSet:
    """Return what a finished loop has learned, with its provenance, in unit pixel space.

    Args:
        config: resolved.
        distiller: finished.
        real: the training images; their fingerprint is recorded.
        seconds: in the loop.
        peak_memory: bytes.
    """
    task, learned = distiller.sources.task, distiller.synthetic
    weights, targets = learned.sample_weights, learned.targets
    added = learned.unit_compensators()
    distilled = DistilledSet(
        images=learned.unit_images().float().cpu().clone(),  # the run may go on
        labels=learned.labels.cpu().clone(),
        classes=task.classes,
        preprocess=task.preprocess,
        multi_formation=learned.multi_formation,
        compensators=None if added is None else added.float().cpu().clone(),
        attributes=attributes(config, distiller, real, seconds, peak_memory),
        sample_weights=None if weights is None else weights.float().cpu().clone(),
        targets=None if targets is None else targets.detach().float().cpu().clone(),
    )
    return _soft_labels(config, distiller, distilled)


def attributes(
    config: RunConfig, distiller: Distiller, real: RealDataset, seconds: float, peak_memory: int
) -> dict[str, Scalar]:
    """Return the provenance of a set, with the arguments of `distilled_set`."""
    task, learned_lr = distiller.sources.task, distiller.synthetic.student_lr
    rate = {} if learned_lr is None else {"learned_lr": learned_lr.item()}
    sizes = {"sizes": as_attribute(distiller.synthetic.sizes)} if distiller.synthetic.sizes else {}
    what = distiller.synthetic.targets_are
    table = shared(configs.as_table(config))
    return {
        **rate,
        **sizes,
        **({"targets": what} if what else {}),
        **({"student": table["student"]} if table["student"] else {}),
        "method": Path(config.method).stem,  # of a recipe file, or a name as it is
        "config": as_toml(table),
        "dataset": task.name,
        "data": json.dumps(table["data"]),
        "network": table["network"],
        "protocol": table["protocol"],
        "fingerprint": real.fingerprint,
        "ipc": config.ipc if isinstance(config.ipc, int) else ",".join(map(str, distiller.synthetic.counts)),
        "seed": config.seed,
        "iterations": distiller.iteration,
        "seconds": seconds,
        "peak_memory_bytes": peak_memory,
        "machine": provenance.machine_name(torch.device(config.compute.device)),
        "packages": json.dumps(provenance.package_versions()),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


_TRIES = 4
"""To label images in the coding that leaves room for these labels."""


def _soft_labels(config: RunConfig, distiller: Distiller, distilled: DistilledSet) -> DistilledSet:
    """Add the logits of labels that were learned, or of those that a teacher gives to the training images.

    The teacher is the first trained network. It sees the images as they are stored, but for codes that are
    refined afterwards. Where it is wrong the label becomes that of the class, one-hot;
    softened like all others, it does not say more than e against 1 (NCFM's code).
    """
    learned, teachers = distiller.synthetic.label_logits, distiller.sources.supply.teachers
    if learned is not None:
        return dataclasses.replace(distilled, soft_labels=learned.detach().float().cpu().clone())
    if config.labels == "hard" or teachers is None:
        return distilled
    room = torch.zeros(distilled.decoded_count, len(distilled.classes))
    labelled, seen = dataclasses.replace(distilled, soft_labels=room), torch.empty(0)
    for _ in range(_TRIES):  # labels take some of a budget, on which the coding of the images depends
        images, origins = _stored(config, labelled).decode()
        if torch.equal(images, seen):
            break
        seen, labels = images, distilled.labels[origins]
        logits = teachers.logits(0, distilled.preprocess(images))
        wrong = logits.argmax(1) != labels
        logits[wrong] = F.one_hot(labels[wrong], len(distilled.classes)).float()
        labelled = dataclasses.replace(distilled, soft_labels=logits)
        if not getattr(config.stored_as, "budget", ""):
            break
    return labelled


def _stored(config: RunConfig, distilled: DistilledSet) -> DistilledSet:
    """Return a set with the pixels that its file will hold."""
    storage = config.stored_as
    if not isinstance(storage, CodingConfig):
        return dataclasses.replace(distilled, images=as_stored(distilled.images, storage))
    with contextlib.suppress(UserError):  # what cannot be coded is stored as it is
        return encoded(distilled, dataclasses.replace(storage, refine=0))
    return distilled
