"""How the work is done: device, precision, compiler, chunks and threads."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge

from dsdistill.config.validation import forbid_extra
from dsdistill.runtime import compiler
from dsdistill.runtime.device import resolve_precision
from dsdistill.runtime.notice import Notify

_WORTH_COMPILING = 1.5e8
"""Pixels through a network that take an uncompiled run some two minutes on two cores; compiling takes one."""


_WORTH_SECONDS = 120.0


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the work is done. ``auto`` and 0 are decided from the machine, and what they become is recorded."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the networks' convolutions; losses, pixels and second-order gradients stay float32."""
    compile: Literal["auto"] | bool = "auto"
    """Use torch.compile; auto does on a CPU, where the run is long enough to earn back its minute."""
    chunk: Annotated[int, Ge(0)] = 0
    """Real images in one pass through a network; 0 chooses by the device's cache or memory."""
    class_chunk: Annotated[int, Ge(0)] = 0
    """Classes whose graphs are held at once; 0 chooses by the device's memory. Gradient matching holds one
    class's graph anyway, and trajectories those of a step."""
    threads: Annotated[int, Ge(0)] = 0
    """CPU threads; 0 keeps torch's choice. Bit-identical results need the same number."""

    def decided(
        self, device: torch.device, pixels: int, notify: Notify, seconds: float = 0.0
    ) -> ComputeConfig:
        """Decide every ``auto`` for a device and a run that takes so many pixels through a network.

        Args:
            notify: receives a sentence where a long run cannot be compiled.
            seconds: that the run lasts whatever its pixels; 0 where that is not said.
        """
        compile = self.compile
        if compile == "auto":
            long = seconds > _WORTH_SECONDS if seconds else pixels > _WORTH_COMPILING
            compile = device.type == "cpu" and long and compiler.can_compile(device, notify)
        return dataclasses.replace(
            self,
            device=str(device),
            precision=resolve_precision(self.precision, device),
            compile=compile,
            threads=self.threads or torch.get_num_threads(),
        )
