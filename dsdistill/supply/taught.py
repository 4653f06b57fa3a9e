"""A population that learns to answer to images as a teacher does: by its features, and without labels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from dsdistill.compute.embedder import Embedder
from dsdistill.config.validation import forbid_extra
from dsdistill.supply.base import NetworkRequest, PassOptions, bytes_of
from dsdistill.supply.population import InPopulationConfig, Population
from dsdistill.supply.teachers import NamedTeachersConfig
from dsdistill.teachers import Teacher, load_feature_teacher


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class TaughtConfig(NamedTeachersConfig, InPopulationConfig):
    """A population that learns the features of a teacher, a network trained beforehand (KRR-ST).

    What its networks answer are as many numbers as the teacher has features. Which classes it knows does not
    matter, nor whether there were labels when it was trained.
    """

    noun: ClassVar[str] = "teachers"

    kind: Literal["taught"] = "taught"
    teachers: Annotated[int, Ge(0)] = 1
    """Trained networks to make for it, where none are named; the first that is named teaches."""
    teacher_network: str = ""
    """The network of those that are trained for it; empty takes that of the recipe they are trained by."""

    def expert_networks(self, network: str) -> str:
        """Return the teacher's: it is another than those of the population."""
        return self.teacher_network

    def build(self, request: NetworkRequest) -> TaughtPopulation:
        """Load the teacher, and return the supply.

        Raises:
            UserError: none is named, or it was trained on other images.
        """
        first = self.named()[0]
        assert request.real is not None
        return TaughtPopulation(
            request, self, load_feature_teacher(first, request.task, request.real, request.device)
        )


class TaughtPopulation(Population):
    """Networks in training to answer with a teacher's features (KRR-ST)."""

    target_network: Embedder

    def __init__(self, request: NetworkRequest, config: TaughtConfig, teacher: Teacher) -> None:
        network = teacher.network
        super().__init__(dataclasses.replace(request, outputs=network.feature_dim), config)
        self.target_network = Embedder(network, request.task.size, request.device)
        self.targets_are = f"features of {teacher.name}"

    def ready(self, passes: PassOptions) -> None:
        """Have the teacher and the steps of the networks computed as the run's options say."""
        super().ready(passes)
        network, options = self.target_network.network, (passes.precision, passes.compile)
        self.target_network = Embedder(
            network, passes.size, self.request.device, *options, notify=passes.notify
        )

    def network_bytes(self, iterations: int) -> int:
        """Count the teacher too."""
        return super().network_bytes(iterations) + bytes_of(self.target_network.network.state_dict())
