"""Loss and gradient of a training step as one CUDA graph: the GPU replays its kernels without the host.

A small network leaves a GPU waiting for the host to launch the next kernel. A graph is captured once for each
shape of a batch. The step of the optimiser, a single fused kernel, stays outside, so that the learning rate
may change.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from dsdistill.errors import UserError
from dsdistill.runtime.compiler import cause
from dsdistill.runtime.device import wait
from dsdistill.runtime.notice import Notify

Mode = Literal["auto"] | bool
"""Whether to capture: "auto" measures, and keeps what is faster."""

Batch = Mapping[str, Tensor]
Backward = Callable[[Batch], Tensor]
"""Sets the ``grad`` of every parameter, None before, and returns the loss, a scalar without a graph."""

_WARM_UP = 3
_TIMED, _ROUNDS = 5, 3
_SHAPES = 4
"""Shapes of batches that are captured, at most; each holds memory of its own."""


def resolve_mode(mode: Mode, device: torch.device, option: str = "compute.cuda_graphs") -> Mode:
    """Return the mode on a device; "auto" is off on a CPU.

    Raises:
        UserError: graphs are asked for, and the device has none.
    """
    if device.type == "cuda":
        return mode
    if mode is True:
        raise UserError(
            f"{option}=true needs a CUDA device, and this runs on the {device.type}: leave it out"
        )
    return False


def capture_graph(backward: Backward, batch: Batch, parameters: Sequence[Tensor]) -> Backward:
    """Capture a function as a graph.

    Args:
        backward: the function. It must not read from the device.
        batch: one to warm up with, on the device; what is captured takes batches of the same shapes.
        parameters: whose gradients it sets.

    Raises:
        Exception: of torch or the driver, where the function cannot be captured.
    """
    device = parameters[0].device
    static = {name: value.clone() for name, value in batch.items()}
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            backward(static)
            _forget(parameters)
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = backward(static)
    gradients = [each.grad for each in parameters]
    _forget(parameters)

    def replay(batch: Batch) -> Tensor:
        for name, value in batch.items():
            static[name].copy_(value)
        graph.replay()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss.clone()

    return replay


def seconds_of(backward: Backward, batch: Batch, parameters: Sequence[Tensor]) -> float:
    """Time a function on a batch, by the median of a few rounds."""
    rounds = []
    for _ in range(_ROUNDS):
        wait(parameters[0].device)
        since = time.perf_counter()
        for _ in range(_TIMED):
            backward(batch)
            _forget(parameters)
        wait(parameters[0].device)
        rounds.append(time.perf_counter() - since)
    return statistics.median(rounds)


class GraphedBackward:
    """Computes loss and gradient of batches, as a graph where that works and, in mode "auto", is faster.

    The first batch of each shape decides. Neither parameters nor buffers change by that.
    """

    def __init__(
        self,
        backward: Backward,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        mode: Mode,
        notify: Notify,
        capture: Callable[[Backward, Batch, Sequence[Tensor]], Backward] | None = None,
        timer: Callable[[Backward, Batch, Sequence[Tensor]], float] | None = None,
    ) -> None:
        """Prepare; nothing is captured yet.

        Args:
            backward: what is to be captured.
            parameters: whose gradients it sets; changed in place alone from now on.
            buffers: that it changes, such as the statistics of batch normalisation; likewise.
            mode: see `resolve_mode`.
            notify: receives one sentence if capturing fails. From then on nothing is captured.
            capture, timer: in place of `capture_graph` and `seconds_of`.
        """
        self._plain, self._mode, self._notify = backward, mode, notify
        self._parameters, self._buffers = list(parameters), list(buffers)
        self._capture, self._timer = capture or capture_graph, timer or seconds_of
        self._chosen: dict[tuple[object, ...], Backward] = {}

    def __call__(self, batch: Batch) -> Tensor:
        """Set the ``grad`` of every parameter, None before; return the loss, a scalar without a graph."""
        if self._mode is False:
            return self._plain(batch)
        shape = tuple((name, value.shape, value.dtype) for name, value in batch.items())
        if shape not in self._chosen:
            full = len(self._chosen) >= _SHAPES
            self._chosen[shape] = self._plain if full else self._choose(batch)
        return self._chosen[shape](batch)

    def _choose(self, batch: Batch) -> Backward:
        """Return what computes batches of this shape from now on."""
        if self._mode is False:
            return self._plain
        before = [each.clone() for each in self._buffers]
        try:
            captured = self._capture(self._plain, batch, self._parameters)
            if self._mode is True:
                return captured
            plain, graphed = (self._timer(each, batch, self._parameters) for each in (self._plain, captured))
            return captured if graphed < plain else self._plain
        except Exception as error:
            self._mode = False
            self._notify(f"running without CUDA graphs: {cause(error)}")
            return self._plain
        finally:
            _forget(self._parameters)
            with torch.no_grad():
                for buffer, value in zip(self._buffers, before, strict=True):
                    buffer.copy_(value)


def _forget(parameters: Sequence[Tensor]) -> None:
    for each in parameters:
        each.grad = None
