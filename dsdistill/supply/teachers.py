"""Teachers as a source of networks: trained, frozen, each of its own architecture, all in every iteration."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill.compute.class_activation import ClassActivation
from dsdistill.compute.recovery import RecoveryNetwork
from dsdistill.config.validation import forbid_extra
from dsdistill.errors import UserError
from dsdistill.files import expanded
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.supply.base import NetworkRequest, NetworkSource, PassOptions, bytes_of
from dsdistill.supply.stored import StoredConfig, logits_of
from dsdistill.synthetic.trained import TrainedNetworks
from dsdistill.teachers import Teacher, TeacherReference, load_teachers
from dsdistill.teachers.reference import teacher_names


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class NamedTeachersConfig(StoredConfig):
    """Networks that were trained to the end, by their names."""

    recipe: ClassVar[str] = "teacher"

    path: str = ""
    """Which ones, with commas between them: FILE for all networks of a file, FILE#EXPERT@EPOCH for one, or a
    library's published weights, torchvision:NAME@WEIGHTS."""

    def references(self) -> list[TeacherReference]:
        """Return what the path names.

        Raises:
            UserError: a name cannot be read.
        """
        names = [self.path] if expanded(self.path).exists() else teacher_names(self.path)
        references = [TeacherReference.parse(name) for name in names]
        return [
            each if each.weights or "#" in name.rpartition("/")[2] else dataclasses.replace(each, expert=None)
            for name, each in zip(names, references, strict=True)
        ]

    def resolved(self) -> Self:
        """Write down which networks these are.

        Raises:
            UserError: a file holds no experts, or others than those written down.
        """
        if not self.path:
            return self
        digests = [
            each.weights or ExpertFile.open(each.source).digest + f"#{each.expert}@{each.epoch}"
            for each in self.references()
        ]
        digest = hashlib.sha256(",".join(digests).encode()).hexdigest()[:16]
        if self.digest not in ("", digest):
            raise UserError(
                f"the teachers {self.path} are others (digest {digest}) than those this run was started with "
                f"({self.digest}): put those back, or start anew, with --set engine.supply.digest= where a "
                "config is replayed"
            )
        return dataclasses.replace(self, digest=digest)

    def named(self) -> list[TeacherReference]:
        """Return what the path names.

        Raises:
            UserError: it names none, or a name cannot be read.
        """
        if not self.path:
            raise UserError(
                "this method needs trained networks, and none are named: pass --experts auto to have them "
                "trained, or --experts FILE"
            )
        return self.references()


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class TeachersConfig(NamedTeachersConfig):
    """Networks that were trained to the end, of one architecture or several."""

    several: ClassVar[bool] = True

    kind: Literal["teachers"] = "teachers"
    networks: Annotated[int, Ge(0)] = 0
    """How many of them to use; 0 takes all."""

    def teacher_count(self) -> int:
        """Return how many networks it takes; 1 where none are named yet.

        Raises:
            UserError: a name cannot be read, or is that of no file of experts.
        """
        if self.networks or not self.path:
            return self.networks or 1
        return sum(
            ExpertFile.open(each.source).count if each.expert is None else 1 for each in self.references()
        )

    def build(self, request: NetworkRequest) -> Teachers:
        """Load them.

        Raises:
            UserError: none are named; they are fewer than are to be used; or they do not fit the task or the
                networks that the run names.
        """
        loaded = load_teachers(self.named(), request.task, request.fingerprint, request.device)
        if self.networks > len(loaded):
            raise UserError(
                f"{self.path} names {len(loaded)} networks, not {self.networks}: set "
                "engine.supply.networks=0 for all of them"
            )
        teachers = Teachers(loaded[: self.networks or None])
        trained = teachers.architectures
        if set(trained) != set(request.architectures):
            raise UserError(
                f"the networks of {_file_names(self.path)} are {', '.join(trained)}, and this run names "
                f"{', '.join(sorted(request.architectures))}: pass --network {','.join(trained)}"
            )
        return teachers


def _file_names(path: str) -> str:
    return ", ".join(Path(name).name for name in path.split(","))


class Teachers(NetworkSource, TrainedNetworks):
    """Trained networks, all on the device, whose weights never change.

    Attributes:
        members: the networks; ``network`` is that of the first.
        count: how many.
        recovering: the same networks as images are recovered from them, once `ready` is called.
    """

    recovering: tuple[RecoveryNetwork, ...]

    def __init__(self, members: Sequence[Teacher]) -> None:
        self.members = tuple(members)
        self.network = self.members[0].network
        self.count = len(self.members)
        self.teachers = self

    @property
    def architectures(self) -> list[str]:
        """The names of their networks in their order, each once."""
        return list(dict.fromkeys(each.architecture for each in self.members))

    def ready(self, passes: PassOptions) -> None:
        """Copy each network as images are recovered from it."""
        options = passes.precision, passes.compile, passes.notify
        self.recovering = tuple(
            RecoveryNetwork(each.network, passes.channels, passes.size, *options) for each in self.members
        )

    def network_bytes(self, iterations: int) -> int:
        """Count all of them, twice: as they are, and as images are recovered from them."""
        return 2 * sum(bytes_of(each.network.state_dict()) for each in self.members)

    def difficulty(self) -> Tensor:
        """Return how hard each training image was for the networks while they were trained, float32 [N].

        It is the mean over the networks of the EL2N that their files hold; a network that is named at several
        epochs counts once.

        Raises:
            UserError: a file does not say.
        """
        if published := [each.name for each in self.members if each.file is None]:
            raise UserError(
                f"{published[0]} does not say how hard each training image was: train networks that record "
                "it, by dsdistill experts --recipe el2n, and pass --experts FILE"
            )
        sources = dict.fromkeys((each.file, each.expert) for each in self.members)
        scores = [
            ExpertFile.open(file).el2n(expert)
            for file, expert in sources
            if file is not None and expert is not None
        ]
        return torch.stack(scores).mean(0)

    def logits(self, network: int, images: Tensor) -> Tensor:
        """Classify images [n, C, H, W] in network space by one of them -> float32 [n, K], on the CPU."""
        return logits_of(self.members[network].network, images)

    def activation(self, network: int, images: Tensor, labels: Tensor) -> Tensor:
        """Return where a network sees the class of each image: see `ClassActivation`.

        Raises:
            UserError: the network has no such maps.
        """
        member = self.members[network]
        return ClassActivation(member.network, member.name, *images.shape[1:3])(images, labels)
