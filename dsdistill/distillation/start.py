"""What is known of a distillation before its first step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dsdistill.config.ipc import as_words
from dsdistill.config.options import flatten
from dsdistill.config.sharing import shared
from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation.config import RunConfig, as_table
from dsdistill.distillation.memory import Estimate
from dsdistill.text import byte_size, plain


@dataclass(frozen=True)
class RunStart:
    """What is known before the first step, for a display of the progress."""

    stage: ClassVar[str] = "distillation"
    config: RunConfig
    task: Task
    real: RealDataset
    memory: Estimate
    iteration: int
    """Steps that the resumed run had taken, or 0."""
    memory_available: int | None
    """Bytes free on the device, where the system says."""
    stored: str
    """What the set stores."""
    too_short: bool = False
    """Whether the run is not compiled because it would not make up for the time that takes."""
    caching: str = ""
    """Whether what is computed of real images is kept, where it could be."""

    def __repr__(self) -> str:
        return f"<RunStart {plain('; '.join(self.describe()))}>"

    @property
    def title(self) -> str:
        """What is distilled, and how."""
        return f"{self.config.method} {self.task.name} IPC {as_words(self.config.ipc)}"

    def options(self) -> dict[str, Any]:
        """Return every option of the run by its dotted key, without folders, as its file tells them."""
        return flatten(shared(as_table(self.config)))

    def describe(self) -> list[str]:
        """Return the run in a few sentences."""
        config = self.config
        length = f"{config.seconds:g} seconds" if config.seconds else f"{config.iterations} iterations"
        lines = [
            f"{self.task.describe(len(self.real))} -> {self.stored}",
            f"{config.method}, {config.network}, {length} on {config.compute.describe(self.too_short)}",
            self._memory(),
        ]
        if self.caching:
            lines.append(self.caching)
        if self.iteration:
            lines.append(f"resuming after iteration {self.iteration}")
        if self.memory_available is not None and not self.fits:
            lines.append(f"only {byte_size(self.memory_available)} is free: {self.config.engine.less_memory}")
        return lines

    @property
    def fits(self) -> bool:
        """Whether there is memory enough, as far as the system says."""
        return self.memory_available is None or self.memory.total <= self.memory_available

    def _memory(self) -> str:
        memory = self.memory
        cached = f", cached real side {byte_size(memory.cached)}" if memory.cached else ""
        real = byte_size(memory.real) if memory.real else "in a file"
        return (
            f"memory estimate {byte_size(memory.total)}: real data {real}, "
            f"graph {byte_size(memory.graph)}, passes {byte_size(memory.frozen)}, "
            f"networks {byte_size(memory.networks)}, synthetic {byte_size(memory.synthetic)}, "
            f"allocator {byte_size(memory.allocator)}{cached}"
        )
