"""One teacher: a trained network, on the device that computes, with what identifies it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.networks import Network, build_network
from dsdistill.seeding import forked
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.teachers.reference import TeacherReference


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network that answers for a task.

    Attributes:
        network: on its device, in eval mode, without gradients of its weights.
        name: for people: "convnet, epoch 3 of pool.h5".
        digest: hexadecimal digits that identify its weights.
        accuracy: on test images, a fraction; None where its file does not say.
        epoch: of its training; None of a library's weights.
        architecture: the name of its network.
    """

    network: Network
    name: str
    digest: str
    accuracy: float | None = None
    epoch: int | None = None
    architecture: str = ""


def load_teachers(
    references: Iterable[TeacherReference], task: Task, fingerprint: str, device: torch.device
) -> list[Teacher]:
    """Load teachers and check that they answer for a task.

    Args:
        references: which ones.
        task: the classes in their order, the shape of the images and their preprocessing.
        fingerprint: of the training images of that task; empty if it is not known.
        device: to compute on.

    Raises:
        UserError: a file holds no experts, or not this one or this epoch; or a teacher was trained for other
            data, classes or preprocessing. The sentence names both.
    """
    return [teacher for each in references for teacher in _loaded(each, task, fingerprint, device)]


def _loaded(
    reference: TeacherReference, task: Task, fingerprint: str, device: torch.device
) -> Iterator[Teacher]:
    if reference.weights:
        raise UserError(f"{reference.source} is not a file of experts")
    file = ExpertFile.open(reference.source)
    metadata = file.metadata
    file.check(task, metadata.network, fingerprint or metadata.fingerprint)
    experts = range(file.count) if reference.expert is None else [reference.expert]
    epoch = file.epochs[-1] if reference.epoch is None else reference.epoch
    for expert in experts:
        weights, buffers = file.snapshot(expert, epoch)
        with forked(0, "teacher"):
            network = build_network(metadata.network, metadata.channels, metadata.size, len(metadata.classes))
        network.load_state_dict(metadata.layout.unpack(weights, buffers))
        identity = hashlib.sha256(metadata.network.encode())
        for part in (weights, buffers):
            identity.update(part.numpy().tobytes())
        number = f"expert {expert}, " if file.count > 1 else ""
        name = f"{metadata.network}, {number}epoch {epoch} of {file.path.name}"
        frozen = network.to(device).eval().requires_grad_(False)
        yield Teacher(frozen, name, identity.hexdigest()[:16], None, epoch, metadata.network)
    file.close()
