"""Networks of the user's own: how they are divided, and what is refused."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from dsdistill import seeding
from dsdistill.errors import UserError
from dsdistill.networks import Network
from dsdistill.networks.convnet import ConvNet
from dsdistill.networks.division import own_network
from dsdistill.networks.layout import Layout
from dsdistill.networks.wrapped import OwnDivision, Split, Tapped, Undivided, Wrapped
from tests.helpers.networks import check_contract, images

SHAPE = (2, 8, 5)  # channels, size, classes


class Plain(nn.Module):
    """A network of which other tests change one thing."""

    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, num_classes)  # it is called last, but comes before the other
        self.neck = nn.Linear(6 * (size // 2) ** 2, 6)

    def hidden(self, x: Tensor) -> Tensor:
        return self.neck(F.avg_pool2d(self.act(self.conv(x)), 2).flatten(1))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.hidden(x))


class Normalised(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(x)).log_softmax(1)


class LooksAtItsHead(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(x).to(self.fc.weight.dtype))


class Divided(Plain):
    """Its classifier has two layers, so that its features are not the input of the last."""

    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        super().__init__(channels, size, num_classes)
        self.classifier = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, num_classes))
        del self.fc

    def embed(self, x: Tensor) -> Tensor:
        return self.hidden(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


class Misleading(Divided):
    """Its embed is not what its classifier takes."""

    def embed(self, x: Tensor) -> Tensor:
        return self.hidden(x) + 1

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.hidden(x))


class Convolutional(Plain):
    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        super().__init__(channels, size, num_classes)
        self.head = nn.Conv2d(6, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.conv(x))).mean((2, 3))


def sequential(num_classes: int) -> nn.Module:
    body = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
    return nn.Sequential(body, nn.Flatten(), nn.Dropout(0.5), nn.Linear(6 * 36, num_classes))


def made(factory: Any) -> Network:
    with seeding.forked(0, "networks"):
        return own_network("mine", factory, *SHAPE)


@pytest.mark.parametrize(
    ("factory", "kind", "features"),
    [
        (Plain, Split, 6),
        (sequential, Split, 216),
        (LooksAtItsHead, Tapped, 6),
        (Normalised, Tapped, 6),
        (Divided, OwnDivision, 6),
        (Misleading, Split, 4),
        (Convolutional, Undivided, 5),
        (ConvNet, OwnDivision, 512),
    ],
)
def test_division(factory: Any, kind: type[Wrapped], features: int) -> None:
    network = made(factory)
    assert type(network) is kind
    assert network.feature_dim == features
    assert network.training
    x = images(2, 8)
    check_contract(network, x)
    with seeding.forked(0, "networks"):
        original = factory(*SHAPE) if factory is not sequential else factory(SHAPE[2])
    torch.testing.assert_close(network(x).log_softmax(1), original.eval()(x).log_softmax(1))


@pytest.mark.parametrize("factory", [Plain, LooksAtItsHead, Divided, Convolutional])
def test_state_holds_every_weight_once_and_replaces_them_all(factory: Any) -> None:
    network, original = made(factory).eval(), factory(*SHAPE)
    layout, x = Layout.of(network), images(2, 8)
    assert layout.buffers == ()
    assert layout.sizes[0] == sum(p.numel() for p in original.parameters())
    zeros = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    assert not functional_call(network, zeros, (x,)).any()
    assert not copy.deepcopy(network).load_state_dict(zeros).missing_keys
    assert network(x).any()


@pytest.mark.parametrize("factory", [Plain, LooksAtItsHead, Divided, Convolutional])
def test_gradients_of_second_order(factory: Any) -> None:
    network, x = made(factory).double(), images(2, 8, dtype=torch.float64).requires_grad_()
    loss = F.cross_entropy(network(x), torch.tensor([0, 3]))
    grads = torch.autograd.grad(
        loss, [p for p in network.parameters() if p.ndim > 1], create_graph=True, allow_unused=True
    )
    total = torch.stack([grad.square().sum() for grad in grads if grad is not None]).sum()
    assert torch.autograd.grad(total, x)[0].abs().sum() > 0


def test_finding_the_division_draws_nothing_from_the_generator_of_weights() -> None:
    class Fresh(Plain):
        """No division of it is known yet."""

    torch_state = torch.random.get_rng_state()
    one = made(Fresh).state_dict()
    again = made(Fresh).state_dict()
    with seeding.forked(0, "networks"):
        original = Fresh(*SHAPE)
    assert torch.equal(one["classifier.weight"], original.fc.weight)
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert torch.equal(torch.random.get_rng_state(), torch_state)


class Shape(Plain):
    def forward(self, x: Tensor) -> Any:
        return self.fc(self.hidden(x)).squeeze().unsqueeze(2)


class Several(Plain):
    def forward(self, x: Tensor) -> Any:
        return self.fc(self.hidden(x)), self.hidden(x)


class OnlyInTraining(Plain):
    def forward(self, x: Tensor) -> Any:
        out = self.fc(self.hidden(x))
        return {"logits": out} if self.training else out


class NotFinite(Plain):
    def forward(self, x: Tensor) -> Any:
        return self.fc(self.hidden(x)) / 0


class Labels(Plain):
    def forward(self, x: Tensor) -> Any:
        return self.fc(self.hidden(x)).argmax(1, keepdim=True).expand(-1, 5)


class Detached(Plain):
    def forward(self, x: Tensor) -> Any:
        return self.fc(self.hidden(x)).detach()


class Raises(Plain):
    def forward(self, x: Tensor) -> Any:
        return self.fc(x.flatten(1))


def fixed() -> nn.Module:
    return Plain(2, 8, 1000)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (Shape, r"network mine returns \[2, 5, 1\], not logits \[B, 5\], here \[2, 5\]"),
        (fixed, r"network mine returns \[2, 1000\], not logits \[B, 5\]"),
        (Several, "network mine returns a tuple, not logits"),
        (OnlyInTraining, "network mine returns a dict, not logits"),
        (NotFinite, "network mine returns logits that are not finite"),
        (Labels, "network mine returns torch.int64, not logits"),
        (Detached, "network mine returns logits without a gradient"),
        (
            Raises,
            "mine cannot take 2x8x8 images in a batch of 2: RuntimeError: mat1 and mat2 shapes cannot be",
        ),
    ],
)
def test_what_comes_out_is_checked(factory: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        made(factory)
    assert "\n" not in str(caught.value)


class RaisesLater(Plain):
    def forward(self, x: Tensor) -> Any:
        if len(x) == 3:
            raise KeyError("three")
        return super().forward(x)


def test_an_exception_in_use_becomes_one_sentence() -> None:
    network = made(RaisesLater)
    for function in (network, network.embed, network.trace):
        with pytest.raises(
            UserError, match=r"^mine cannot take 2x8x8 images in a batch of 3: KeyError: 'three'$"
        ):
            function(images(2, 8, count=3))
    assert network(images(2, 8, count=4)).shape == (4, 5)


class OutOfMemory(Plain):
    def forward(self, x: Tensor) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_full_memory_is_not_the_networks_fault() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        made(OutOfMemory)


class Blocks(nn.Module):
    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        super().__init__()
        widths = [channels, 3, 4]
        self.blocks = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = F.max_pool2d(block(x).relu(), 2)
        return self.fc(x.mean((2, 3)))


def test_maps_of_blocks_in_a_list_are_traced() -> None:
    maps, _ = made(Blocks).trace(images(2, 8))
    assert [tuple(each.shape[1:]) for each in maps] == [(3, 8, 8), (4, 4, 4)]
