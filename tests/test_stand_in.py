"""The stand-in of a CUDA device refuses what CUDA refuses, and notices where the host waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsdistill.seeding import generator
from tests.helpers.cuda_rules import Misplaced
from tests.helpers.stand_in import Device, StandIn, stand_in


@pytest.fixture
def device() -> Iterator[Device]:
    with stand_in() as device:
        yield device


def there(*shape: int) -> Tensor:
    return torch.ones(shape, device="cuda")


MISPLACED: dict[str, Callable[[], Any]] = {
    "sum": lambda: there(2) + torch.ones(2),
    "product": lambda: there(2, 2) @ torch.ones(2, 2),
    "joined": lambda: torch.cat([there(2), torch.ones(2)]),
    "in place": lambda: torch.ones(2).add_(there(2)),
    "number in place": lambda: torch.tensor(1.0).add_(there(1).sum()),
    "gathered": lambda: there(2, 2).gather(0, torch.zeros(1, 2, dtype=torch.int64)),
    "selected": lambda: there(2, 2).index_select(0, torch.tensor([1])),
    "index on the device": lambda: torch.ones(3)[torch.tensor([1], device="cuda")],
    "values put": lambda: there(3).index_put_((torch.tensor([1, 2], device="cuda"),), torch.ones(2)),
    "labels": lambda: F.cross_entropy(there(2, 3), torch.tensor([0, 1])),
    "weights": lambda: nn.Linear(2, 2)(there(1, 2)),
    "lists": lambda: torch._foreach_add([there(2)], [torch.ones(2)]),
    "generator": lambda: torch.randn(2, device="cuda", generator=generator(0, "a stream")),
}


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("case", MISPLACED)
def test_what_mixes_devices_is_refused(case: str) -> None:
    with pytest.raises(Misplaced):
        MISPLACED[case]()


@pytest.mark.usefixtures("device")
def test_an_array_is_made_on_the_host_alone() -> None:
    with pytest.raises(TypeError, match="numpy"):
        there(2).numpy()


WAITING: dict[str, Callable[[], Any]] = {
    "item": lambda: there(1).item(),
    "float": lambda: float(there(1)),
    "truth": lambda: bool(there(1) > 0),
    "list": lambda: there(2).tolist(),
    "to the host": lambda: there(2).cpu(),
    "to the device": lambda: torch.ones(2).to("cuda"),
    "copied to the device": lambda: there(2).copy_(torch.ones(2)),
    "made of a list": lambda: torch.tensor([1.0, 2.0], device="cuda"),
    "nonzero": lambda: there(2).nonzero(),
    "mask": lambda: there(2)[there(2) > 0],
    "index on the host": lambda: there(2)[torch.tensor([1])],
    "repeated": lambda: there(2).repeat_interleave(torch.tensor([1, 2]).to("cuda", non_blocking=True)),
    "module": lambda: nn.Linear(1, 1, bias=False).to("cuda"),
}


@pytest.mark.parametrize("case", WAITING)
def test_what_waits_is_noticed(device: Device, case: str) -> None:
    WAITING[case]()
    assert len(device.waits) == 1


STRAIGHT: dict[str, Callable[[], Any]] = {
    "numbers of the host": lambda: there(2) * torch.tensor(2.0) + 1,
    "in its own time": lambda: torch.ones(2).to("cuda", non_blocking=True),
    "index": lambda: there(2)[torch.arange(1, device="cuda")],
    "filled by a mask": lambda: there(2).masked_fill_(there(2) > 0, 0.0),
    "put by a mask": lambda: there(2).__setitem__(there(2) > 0, 0.0),
    "one-hot": lambda: F.one_hot(torch.arange(2, device="cuda"), 2),
    "generator": lambda: torch.randn(2, device="cuda", generator=generator(0, "a stream", device="cuda")),
    "there already": lambda: there(2).to("cuda"),
}


@pytest.mark.parametrize("case", STRAIGHT)
def test_what_does_not_wait_is_let_pass(device: Device, case: str) -> None:
    STRAIGHT[case]()
    assert not device.waits


@pytest.mark.usefixtures("device")
def test_values_and_gradients_are_those_of_the_cpu() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 2))
    images, labels = torch.randn(4, 1, 8, 8, generator=generator(0, "images")), torch.tensor([0, 1, 1, 0])
    own = F.cross_entropy(net(images), labels)
    gradients = torch.autograd.grad(own, list(net.parameters()))
    net.to("cuda")
    loss = F.cross_entropy(net(images.to("cuda")), labels.to("cuda"))
    loss.backward()
    assert isinstance(loss, StandIn)
    assert loss.item() == own.item()
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        assert parameter.grad.is_cuda
        assert torch.equal(parameter.grad.cpu(), gradient)


@pytest.mark.usefixtures("device")
def test_a_tensor_that_is_there_stays_the_same() -> None:
    tensor = there(2)
    assert tensor.to("cuda") is tensor
    view = tensor[1:]
    view.add_(1)
    assert tensor.tolist() == [1.0, 2.0]
    net = nn.Linear(2, 2).to("cuda")
    weight = net.weight
    assert net.to("cuda").weight is weight
    assert net.to("meta").weight.is_meta
    assert torch.empty(2, device="meta").is_meta


def test_nothing_is_left_behind() -> None:
    available = torch.cuda.is_available()
    with stand_in():
        assert torch.cuda.is_available()
    assert torch.cuda.is_available() == available
    assert torch.Generator().device.type == "cpu"
    assert type(torch.Generator()) is torch.Generator
