"""One teacher: a trained network, on the device that computes, with what identifies it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from dsdistill.compute.memory_format import in_fast_order
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.networks import Network, build_network
from dsdistill.networks.pretrained import pretrained, restricted
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
        test_accuracy: on test images, a fraction; None where its file does not say.
        validation_accuracy: on training images that were held out, a fraction; None where none were.
        epoch: of its training; None of a library's weights.
        architecture: the name of its network.
        file, expert: where it was read from; None of a library's weights.
    """

    network: Network
    name: str
    digest: str
    test_accuracy: float | None = None
    validation_accuracy: float | None = None
    epoch: int | None = None
    architecture: str = ""
    file: Path | None = None
    expert: int | None = None


def load_teachers(
    references: Iterable[TeacherReference],
    task: Task,
    fingerprint: str,
    device: torch.device,
    download: bool = False,
) -> list[Teacher]:
    """Load teachers and check that they answer for a task.

    Args:
        references: which ones.
        task: the classes in their order, the shape of the images and their preprocessing.
        fingerprint: of the training images of that task; empty if it is not known.
        device: to compute on.
        download: fetch published weights that this machine lacks.

    Raises:
        UserError: a file holds no experts, or not this one or this epoch; or a teacher was trained for other
            data, classes or preprocessing. The sentence names both.
    """
    teachers: list[Teacher] = []
    for each in references:
        if each.weights:
            teachers.append(_published(each, task, device, download))
        else:
            teachers += _trained(each, task, fingerprint, device)
    return teachers


def _trained(
    reference: TeacherReference, task: Task, fingerprint: str, device: torch.device
) -> Iterator[Teacher]:
    """Yield the experts of a file that a reference names."""
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
        number = f"expert {expert}, " if file.count > 1 else ""
        name = f"{metadata.network}, {number}epoch {epoch} of {file.path.name}"
        yield Teacher(
            network=answering(network, device),
            name=name,
            digest=_digest(metadata.network, network),
            test_accuracy=file.test_accuracy(expert, epoch) if file.training[expert].test_accuracy else None,
            validation_accuracy=file.validation_accuracy(expert, epoch) if file.holds_out else None,
            epoch=epoch,
            architecture=metadata.network,
            file=file.path,
            expert=expert,
        )
    file.close()


def _published(reference: TeacherReference, task: Task, device: torch.device, download: bool) -> Teacher:
    """Return a library's network with published weights, for those of its classes that the task has."""
    model = pretrained(reference.source, reference.weights, task.size, download)
    places = {name: place for place, name in enumerate(model.classes)}
    if absent := [name for name in task.classes if name not in places]:
        raise UserError(
            f"{model.name} knows {len(places)} classes of ImageNet, and {absent[0]!r} of {task.name} is none"
        )
    if task.channels != len(model.mean):
        raise UserError(
            f"{model.name} takes images of {len(model.mean)} channels, and {task.name} has {task.channels}"
        )
    expected, mine = task.preprocess.state(), Standardise.of(model.mean, model.std).state()
    if task.preprocess.kind != Standardise.kind or not all(
        torch.allclose(mine[name], expected[name], atol=1e-3) for name in mine
    ):
        raise UserError(
            f"{model.name} was trained on images standardised by mean {list(model.mean)} and deviation "
            f"{list(model.std)}, and {task.name} is preprocessed otherwise"
        )
    rows = torch.tensor([places[name] for name in task.classes])
    network = model.network if len(rows) == len(places) else restricted(model.network, rows)
    digest, frozen = _digest(model.name, network), answering(network, device)
    return Teacher(frozen, model.name, digest, architecture=reference.source)


def _digest(name: str, network: Network) -> str:
    """Return 16 hexadecimal digits of a network's name and weights."""
    identity = hashlib.sha256(name.encode())
    for key, value in network.state_dict().items():
        identity.update(key.encode())
        identity.update(value.detach().cpu().numpy().tobytes())
    return identity.hexdigest()[:16]


def answering(network: Network, device: torch.device) -> Network:
    """Return a trained network as a teacher's: on its device, in eval mode, without gradients of weights."""
    return in_fast_order(network.to(device).eval().requires_grad_(False), device)
