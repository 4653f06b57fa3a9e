"""Options of the computation: device, precision, compiler, chunks and threads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import torch
from annotated_types import Ge, Le

from dsdistill.config.validation import forbid_extra
from dsdistill.runtime import compiled_runs, compiler
from dsdistill.runtime.device import resolve_precision
from dsdistill.runtime.notice import Notify, once

_LONG_PIXELS = 1.5e8
"""Above so many pixels through a network, an uncompiled run takes some two minutes on two cores; compiling
takes one."""

_LONG_SECONDS = 120.0
"""Above so many seconds a run is long enough to compile."""

_SHORTER = 6
"""How many times shorter a run may be whose code is on disk: it starts after seconds, not after a minute."""

PIXELS_A_SECOND = _LONG_PIXELS / _LONG_SECONDS
"""What two cores about pass through a network, uncompiled."""


def is_long(pixels: int, seconds: float = 0.0, again: bool = False) -> bool:
    """Whether a run on a CPU is long enough to make up for the time that compiling takes.

    Args:
        pixels: that the run passes through a network.
        seconds: the time budget of the run, which counts instead of the pixels; 0 if it has none.
        again: it was compiled before, so that its code is on disk.
    """
    factor = _SHORTER if again else 1
    return factor * seconds > _LONG_SECONDS if seconds else factor * pixels > _LONG_PIXELS


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Options of the computation. ``auto`` and 0 are decided from the machine; the decision is recorded."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the networks' convolutions for gradients of first order; losses and pixels stay float32."""
    compile: Literal["auto"] | bool = "auto"
    """Use torch.compile; auto does so on a CPU if the run is long enough to make up for a minute of it, or
    for seconds where the same run was compiled on this machine before, as torch keeps the code on disk."""
    chunk: Annotated[int, Ge(0)] = 0
    """Real images per pass through a network; 0 chooses by the device's cache or memory."""
    class_chunk: Annotated[int, Ge(0)] = 0
    """Classes whose graphs are in memory at once; 0 chooses by the device's memory. Gradient matching always
    holds the graph of one class, and trajectory matching those of one step."""
    threads: Annotated[int, Ge(0), Le(1024)] = 0
    """CPU threads; 0 keeps torch's choice. Only the same number gives bit-identical results."""

    @property
    def precisions(self) -> dict[str, str]:
        """The options that are precisions, by name."""
        return {"precision": self.precision}

    def decide(
        self,
        device: torch.device,
        pixels: int,
        notify: Notify,
        options: Mapping[str, Any],
        seconds: float = 0.0,
    ) -> Self:
        """Decide every ``auto``.

        Args:
            device: that computes.
            pixels: that the run passes through a network.
            notify: receives a notice if the run is to be compiled and cannot be, or has a slow precision.
            options: the other ones of the run that its compiled code follows from.
            seconds: the time budget of the run, which counts instead of the pixels; 0 if it has none.
        """
        notify_once = once(notify)  # one sentence says it of all
        precisions: dict[str, Any] = {
            name: resolve_precision(value, device, notify_once) for name, value in self.precisions.items()
        }
        threads = self.threads or torch.get_num_threads()
        decided = dataclasses.replace(self, device=str(device), threads=threads, **precisions)
        compile = self.compile
        if compile == "auto":
            compile = device.type == "cpu" and (
                is_long(pixels, seconds)
                or (is_long(pixels, seconds, again=True) and compiled_runs.is_compiled(decided.code(options)))
            )
        return dataclasses.replace(decided, compile=compile and compiler.compiles(device, notify))

    def is_too_short(self, decided: Self, pixels: int, seconds: float = 0.0) -> bool:
        """Whether a run is not compiled because it would not make up for the time that takes.

        Args:
            decided: what `decide` made of these options.
            pixels, seconds: as for `decide`.
        """
        on_cpu = torch.device(decided.device).type == "cpu"
        return self.compile == "auto" and on_cpu and not (decided.compile or is_long(pixels, seconds))

    def code(self, options: Mapping[str, Any]) -> str:
        """Return which code a run is compiled to, as a digest.

        Args:
            options: as for `decide`.
        """
        own = self.precisions | {name: getattr(self, name) for name in ("chunk", "class_chunk", "threads")}
        return compiled_runs.digest(torch.device(self.device), {**options, "compute": own})

    def describe(self, too_short: bool = False) -> str:
        """Return the hardware as displays show it.

        Args:
            too_short: the run is not compiled because it would not make up for the time that takes.
        """
        words = [self.device, self.precision]
        words += [
            f"{name.replace('_', ' ')} {value}"
            for name, value in self.precisions.items()
            if name != "precision" and value != "fp32"
        ]
        if self.compile:
            words.append("compiled (the first steps take up to a minute)")
        elif too_short:
            words.append(
                "not compiled (too short to make up for the minute it takes; compute.compile=true does)"
            )
        return ", ".join(words)
