"""How a network of the user's own is divided into an embedding and a classifier, found by trying.

The first of these that computes the network's own logits is taken:

1. its method ``embed`` and its module ``classifier``, if it has them;
2. its last linear layer taken off;
3. the input of that layer recorded, where the network needs the layer to be there, or goes on after it;
4. its logits as features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.networks.factories import NetworkFactory, make
from dsdistill.networks.wrapped import OwnDivision, Split, Tapped, Undivided, Wrapped, cannot_take
from dsdistill.plugs import passes_on

Divide = Callable[[nn.Module], Wrapped]


def own_network(name: str, factory: NetworkFactory, channels: int, size: int, num_classes: int) -> Network:
    """Make a network of the user's own, divided.

    Args:
        name: of the network.
        factory: see `factories`.
        channels, size, num_classes: of the images and the task.

    Raises:
        UserError: it cannot be made, cannot take the images, or its output is not [B, K].
    """
    divide = _division(name, factory, channels, size, num_classes)
    return divide(make(name, factory, channels, size, num_classes))


@functools.lru_cache(64)
def _division(name: str, factory: NetworkFactory, channels: int, size: int, num_classes: int) -> Divide:
    """Find how a network is divided, by networks of their own; the generator of weights is left as it was."""

    def fresh() -> nn.Module:
        return make(name, factory, channels, size, num_classes)

    images = torch.linspace(-1, 1, 2 * channels * size * size).view(2, channels, size, size)
    with torch.random.fork_rng(devices=[]):
        _check(name, fresh(), images, num_classes)
        for divide in _candidates(name, fresh(), images, num_classes):
            if _computes_the_same(divide, fresh(), images):
                return divide
    return functools.partial(_undivided, name, num_classes)


def _check(name: str, model: nn.Module, images: Tensor, num_classes: int) -> None:
    """Check what comes out of a network, in training and in evaluation.

    Raises:
        UserError: it is not [B, K] of finite numbers with a gradient.
    """
    for training in (True, False):
        model.train(training)
        try:
            out = model(images)
        except Exception as error:
            if passes_on(error):
                raise
            raise cannot_take(name, tuple(images.shape), error) from error
        wanted = f"logits [B, {num_classes}], here [{len(images)}, {num_classes}]"
        if not isinstance(out, Tensor):
            raise UserError(f"network {name} returns a {type(out).__name__}, not {wanted}")
        if tuple(out.shape) != (len(images), num_classes):
            raise UserError(f"network {name} returns {list(out.shape)}, not {wanted}")
        if not out.is_floating_point():
            raise UserError(f"network {name} returns {out.dtype}, not {wanted} of floating-point numbers")
        if not out.isfinite().all():
            raise UserError(f"network {name} returns logits that are not finite for images in -1 … 1")
        if not out.requires_grad:
            raise UserError(
                f"network {name} returns logits without a gradient: it detaches them, or uses no_grad"
            )


def _candidates(name: str, model: nn.Module, images: Tensor, num_classes: int) -> Iterator[Divide]:
    """Yield the ways in which a network may be divided."""
    embed = getattr(model, "embed", None)
    if callable(embed) and isinstance(getattr(model, "classifier", None), nn.Module):
        with torch.no_grad():
            try:
                shape = embed(images).shape
            except Exception:  # then it is another kind of embed
                shape = torch.Size()
        if len(shape) == 2:
            yield functools.partial(_own, name, shape[1])
    if head := _head(model.eval(), images, num_classes):
        yield functools.partial(_split, name, head)
        yield functools.partial(_tapped, name, head)


def _own(name: str, feature_dim: int, model: nn.Module) -> Wrapped:
    return OwnDivision(name, model, feature_dim)


def _split(name: str, head: str, model: nn.Module) -> Wrapped:
    return Split(name, model, head)


def _tapped(name: str, head: str, model: nn.Module) -> Wrapped:
    return Tapped(name, model, head)


def _undivided(name: str, num_classes: int, model: nn.Module) -> Wrapped:
    return Undivided(name, model, num_classes)


@torch.no_grad()
def _head(model: nn.Module, images: Tensor, num_classes: int) -> str:
    """Return the dotted name of the linear layer that gives a network's logits; empty if there is none."""
    outputs: dict[str, Tensor] = {}

    def recording(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def record(_module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
            if inputs and inputs[0].ndim == 2:
                outputs[path] = out

        return record

    hooks = [
        module.register_forward_hook(recording(path))
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == num_classes and path
    ]
    logits = model(images)
    for hook in hooks:
        hook.remove()
    heads = [path for path, out in outputs.items() if _equivalent(out, logits)]
    return heads[-1] if heads else ""


def _equivalent(one: Tensor, logits: Tensor) -> bool:
    """Whether logits are the same to a loss, which normalises them."""
    return one.shape == logits.shape and torch.allclose(
        F.log_softmax(one, 1), F.log_softmax(logits, 1), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def _computes_the_same(divide: Divide, model: nn.Module, images: Tensor) -> bool:
    """Whether a network has the same logits when it is divided."""
    before = model.eval()(images)
    try:
        network = divide(model).eval()
        features = network.features(images)
        return tuple(features.shape) == (len(images), network.feature_dim) and _equivalent(
            network.classifier(features), before
        )
    except Exception:  # it cannot be divided in this way
        return False
