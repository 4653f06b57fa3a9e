"""One teacher: a trained network, on the device that computes, with what identifies it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dsdistill.compute.memory_format import in_fast_order
from dsdistill.data.preprocess import ZCA, Standardise
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.networks import Network, build_network
from dsdistill.networks.pretrained import Pretrained, pretrained, restricted
from dsdistill.seeding import forked
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.teachers.reference import TeacherReference

_OWN = "name a network trained on these images, a file of dsdistill experts"
"""What to do where published weights do not fit."""


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
            file = ExpertFile.open(each.source)
            file.check(task, file.metadata.network, fingerprint or file.metadata.fingerprint)
            teachers += _trained(file, each, device)
    return teachers


def load_feature_teacher(
    reference: TeacherReference, task: Task, real: RealDataset, device: torch.device
) -> Teacher:
    """Load a teacher whose features alone are taken, and check that they are of a task's images.

    Its classes may be any: it may have been trained with labels, or without.

    Args:
        reference: which one; of all experts of a file it is the first.
        task: the shape of the images and their preprocessing.
        real: the training images.
        device: to compute on.

    Raises:
        UserError: a file holds no experts, or not this one or this epoch; or the teacher was trained on other
            images, or on images that are preprocessed otherwise. The sentence names both.
    """
    if reference.weights:
        return _published(reference, task, device, answers=False)
    file = ExpertFile.open(reference.source)
    file.check_features(task, real)
    (teacher,) = _trained(file, dataclasses.replace(reference, expert=reference.expert or 0), device)
    return teacher


def _trained(file: ExpertFile, reference: TeacherReference, device: torch.device) -> Iterator[Teacher]:
    """Yield the experts of a file that a reference names, and close it."""
    metadata = file.metadata
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


def _published(
    reference: TeacherReference,
    task: Task,
    device: torch.device,
    download: bool = False,
    answers: bool = True,
) -> Teacher:
    """Return a library's network with published weights.

    Args:
        answers: whether it is for those of its classes that the task has; it keeps all of them otherwise.
    """
    model = pretrained(reference.source, reference.weights, task.size, download)
    rows = _rows_of(task, model) if answers else None
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
            f"{list(model.std)}, and {task.name} is preprocessed otherwise: "
            + ("pass --set data.zca=false" if task.preprocess.kind == ZCA.kind else _OWN)
        )
    network = model.network
    if rows is not None and len(rows) != len(set(model.classes)):
        network = restricted(network, rows)
    digest, frozen = _digest(model.name, network), answering(network, device)
    return Teacher(frozen, model.name, digest, architecture=reference.source)


def _rows_of(task: Task, model: Pretrained) -> Tensor:
    """Return the positions of a task's classes among those of a model, int64 [K].

    Raises:
        UserError: one is not among them.
    """
    places = {name: place for place, name in enumerate(model.classes)}
    if absent := [name for name in task.classes if name not in places]:
        raise UserError(
            f"{model.name} knows {len(places)} classes of ImageNet, and {absent[0]!r} of {task.name} is none"
        )
    return torch.tensor([places[name] for name in task.classes])


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
