"""What is captured is what is faster, or was asked for and works; a fake one takes the place of CUDA's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dsdistill.errors import UserError
from dsdistill.runtime.cuda_graphs import Backward, Batch, GraphedBackward, Mode, resolve_mode
from dsdistill.seeding import forked

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Machine:
    """Captures by running, and times by a table; counts both."""

    def __init__(self, plain: float = 2.0, graphed: float = 1.0, error: Exception | None = None) -> None:
        self.seconds, self.error = (plain, graphed), error
        self.captured: list[Backward] = []
        self.replayed = 0
        self.said: list[str] = []
        with forked(0, "test"):
            self.network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))

    def plain(self, batch: Batch) -> Tensor:
        loss = self.network(batch["images"]).square().sum()
        loss.backward()
        return loss.detach()

    def capture(self, backward: Backward, batch: Batch, parameters: Sequence[Tensor]) -> Backward:
        if self.error:
            raise self.error
        backward(batch)  # warms up, and leaves gradients and statistics behind

        def replay(batch: Batch) -> Tensor:
            self.replayed += 1
            return backward(batch)

        self.captured.append(replay)
        return replay

    def seconds_of(self, backward: Backward, batch: Batch, parameters: Sequence[Tensor]) -> float:
        return self.seconds[backward in self.captured]

    def graphed(self, mode: Mode) -> GraphedBackward:
        state: tuple[Any, ...] = tuple(self.network.parameters()), tuple(self.network.buffers())
        told = self.capture, self.seconds_of
        return GraphedBackward(self.plain, *state, mode, self.said.append, *told)


def batch(images: int = 4) -> dict[str, Tensor]:
    return {"images": torch.arange(3.0 * images).reshape(images, 3)}


@pytest.mark.parametrize(
    ("mode", "machine", "replayed"),
    [
        ("auto", lambda: Machine(plain=2.0, graphed=1.0), 2),
        ("auto", lambda: Machine(plain=1.0, graphed=2.0), 0),
        (True, lambda: Machine(plain=1.0, graphed=2.0), 2),
        (False, lambda: Machine(plain=2.0, graphed=1.0), 0),
    ],
)
def test_what_is_faster_or_asked_for_is_kept(
    mode: Mode, machine: Callable[[], Machine], replayed: int
) -> None:
    used = machine()
    backward = used.graphed(mode)
    for _ in range(2):
        backward(batch())
        for each in used.network.parameters():
            each.grad = None
    assert used.replayed == replayed
    assert len(used.captured) == (0 if mode is False else 1)
    assert not used.said


@pytest.mark.parametrize("mode", ["auto", True])
def test_where_capturing_fails_one_sentence_says_so(mode: Mode) -> None:
    used = Machine(error=RuntimeError("operation not permitted when stream is capturing\nmore"))
    backward = used.graphed(mode)
    loss = backward(batch())
    assert used.network[0].weight.grad is not None
    assert loss == Machine().plain(batch())
    backward(batch(images=5))
    assert used.said == ["running without CUDA graphs: operation not permitted when stream is capturing"]


def test_deciding_changes_neither_statistics_nor_gradients() -> None:
    used, other = Machine(), Machine()
    used.graphed("auto")(batch())
    other.plain(batch())
    for one, same in zip(used.network.buffers(), other.network.buffers(), strict=True):
        assert torch.equal(one, same)
    for one, same in zip(used.network.parameters(), other.network.parameters(), strict=True):
        assert one.grad is not None
        assert torch.equal(one.grad, same.grad)


def test_few_shapes_are_captured() -> None:
    used = Machine()
    backward = used.graphed(True)
    for images in (2, 3, 4, 5, 6, 2):
        backward(batch(images))
    assert len(used.captured) == 4
    assert used.replayed == 5


def test_a_cpu_has_no_graphs() -> None:
    assert resolve_mode("auto", CPU) is False
    assert resolve_mode(False, CPU) is False
    assert resolve_mode("auto", CUDA) == "auto"
    assert resolve_mode(True, CUDA) is True
    with pytest.raises(UserError, match=r"^compute\.cuda_graphs=true needs a CUDA device") as caught:
        resolve_mode(True, CPU)
    assert "\n" not in str(caught.value)
