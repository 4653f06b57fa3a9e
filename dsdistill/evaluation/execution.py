"""The device, the precision and the compilation of an evaluation: how fast it runs, not what it finds."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dsdistill.runtime import compiler
from dsdistill.runtime.cuda_graphs import Mode
from dsdistill.runtime.device import Precision
from dsdistill.runtime.notice import Notify, silent
from dsdistill.runtime.ranks import ALONE, Ranks

CPU = torch.device("cpu")

Auto = Literal["auto"]

# Pixels that the students of one network see (epochs × images × H × W × students) before compiling pays.
# Compiling a ConvNet takes 15 to 20 s on a core, a few from the cache, and saves two fifths of each step:
# with 64 maps, 0.5 ms (bf16) to 0.8 ms (fp32) for each image of 28 pixels.
COMPILE_PIXELS = {"cpu": 4 * 10**7, "cuda": 10**10}


@dataclass(frozen=True)
class Execution:
    """Where and how students are computed. Results are the same up to rounding."""

    device: torch.device = CPU
    precision: Precision = "fp32"
    compile: bool = False
    notify: Notify = silent
    cuda_graphs: Mode = False

    def prepare(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return the function, compiled if ``compile`` is set."""
        return (
            compiler.compile_or_eager(_own(function), self.device, self.notify) if self.compile else function
        )

    def describe(self, too_short: bool = False) -> str:
        """Return the hardware as displays show it.

        Args:
            too_short: students are not compiled because they would not make up for the time that takes.
        """
        words = [str(self.device), self.precision]
        if self.compile:
            words.append("compiled (the first steps of a network take a minute)")
        elif too_short:
            words.append("not compiled (too short to make up for the time that takes)")
        return ", ".join(words)


@dataclass(frozen=True)
class ExecutionConfig:
    """Where and how an evaluation is computed.

    Attributes:
        compile: "auto" compiles where the work is large enough to gain from it (``COMPILE_PIXELS``).
        stack: train the students of a network together. "auto" does so on CUDA, for networks that allow it.
        cuda_graphs: replay loss and gradient of a step as a CUDA graph; without "auto" on a CPU (see
            ``dsdistill.runtime.cuda_graphs.resolve_mode``). "auto" measures, and keeps what is faster.
        ranks: the processes that share the students; each trains whole ones, and stacks its own.
    """

    device: torch.device = CPU
    precision: Precision = "fp32"
    compile: bool | Auto = "auto"
    stack: bool | Auto = "auto"
    cuda_graphs: Mode = False
    ranks: Ranks = ALONE

    def execution(self, pixels: int, notify: Notify) -> Execution:
        """Return how the students of one network are computed, which see so many pixels in all."""
        enough = pixels >= COMPILE_PIXELS[self.device.type] if self.compile == "auto" else self.compile
        return Execution(self.device, self.precision, enough, notify, self.cuda_graphs)

    def is_too_short(self, execution: Execution) -> bool:
        """Whether students are not compiled because they would not make up for the time that takes."""
        return self.compile == "auto" and not execution.compile


def _own(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Copy a closure along with its code: the compiler keeps few variants of one code object (8 by default).

    Every architecture and batch shape is a variant.
    """
    assert isinstance(function, types.FunctionType)
    code = function.__code__.replace()
    return types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
