"""Networks that were not written for this package, divided into an embedding and a classifier.

`Wrapped` is what they have in common; each class below it is one way of division. `division` finds the way.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.networks.layers import out_of_place
from dsdistill.plugs import cause, passes_on

R = TypeVar("R")


class Wrapped(Network):
    """A model of a library or of the user: nothing is known of what its layers do.

    Attributes:
        name: for messages.
        backbone: the model, all of it but the classifier.
    """

    def __init__(self, name: str, backbone: nn.Module, classifier: nn.Module, feature_dim: int) -> None:
        super().__init__()
        out_of_place(backbone)
        self.name = name
        self.backbone = backbone
        self.classifier = classifier
        self.feature_dim = feature_dim

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return the input of the classifier, as the model computes it."""

    def embed(self, x: Tensor) -> Tensor:
        """Return the input of the classifier, [B, feature_dim].

        Raises:
            UserError: the model raises an exception.
        """
        return self._computed(self.features, x)

    def trace(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the feature maps and the embedding.

        The maps are the last square one [B, c, h, h] of each resolution above one pixel, except outputs of
        pooling; transformers have few such maps.

        Raises:
            UserError: the model has no such maps, or raises an exception.
        """
        return self._computed(self.maps, x)

    def maps(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return what `trace` does, as the model computes it."""
        last_maps: dict[int, Tensor] = {}

        def record(_module: nn.Module, _inputs: object, out: object) -> None:
            if isinstance(out, Tensor) and out.ndim == 4 and out.shape[2] == out.shape[3] > 1:
                last_maps[out.shape[2]] = out

        units = [unit for unit in _units(self.backbone) if not isinstance(unit, _POOLS)]
        hooks = [unit.register_forward_hook(record) for unit in units]
        try:
            embedding = self.features(x)
        finally:
            for hook in hooks:
                hook.remove()
        if not last_maps:
            raise UserError(
                f"{self.name} has no feature maps to match at this size; use a convolutional network"
            )
        return list(last_maps.values()), embedding

    def _computed(self, compute: Callable[[Tensor], R], x: Tensor) -> R:
        """Compute; what the model raises becomes one sentence."""
        if torch.compiler.is_compiling():  # whose own exceptions pass through here
            return compute(x)
        try:
            return compute(x)
        except Exception as error:
            if passes_on(error):
                raise
            raise cannot_take(self.name, tuple(x.shape), error) from error


class Split(Wrapped):
    """A model whose last linear layer is taken off: what remains computes the embedding."""

    def __init__(self, name: str, model: nn.Module, head: str) -> None:
        """Take the layer of a dotted name off."""
        linear = model.get_submodule(head)
        assert isinstance(linear, nn.Linear)
        model.set_submodule(head, nn.Identity())
        super().__init__(name, model, linear, linear.in_features)

    def features(self, x: Tensor) -> Tensor:
        """Return what the model would give its last layer."""
        return self.backbone(x)

    def maps(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return feature maps and embedding; timm names the last map of each stage."""
        model: Any = self.backbone
        if hasattr(model, "forward_intermediates"):
            last, maps = model.forward_intermediates(x)
            return maps, model.forward_head(last, pre_logits=True)
        return super().maps(x)


class OwnDivision(Wrapped):
    """A model with a method ``embed`` and a module ``classifier``, as networks of this package have them."""

    def __init__(self, name: str, model: nn.Module, feature_dim: int) -> None:
        classifier = model.get_submodule("classifier")
        model.set_submodule("classifier", nn.Identity())  # or it would be in the state twice
        super().__init__(name, model, classifier, feature_dim)

    def features(self, x: Tensor) -> Tensor:
        """Return what the model's own ``embed`` does."""
        model: Any = self.backbone
        return model.embed(x)

    def maps(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return feature maps and embedding; a `Network` traces itself."""
        return self.backbone.trace(x) if isinstance(self.backbone, Network) else super().maps(x)


class Tapped(Wrapped):
    """A model from which its last linear layer cannot be taken; the input of that layer is recorded.

    What follows the layer, such as ``log_softmax``, is left out: the loss makes up for it.
    """

    def __init__(self, name: str, model: nn.Module, head: str) -> None:
        """Tap the layer of a dotted name."""
        linear = model.get_submodule(head)
        assert isinstance(linear, nn.Linear)
        tap = _Tap(linear)
        model.set_submodule(head, tap)
        super().__init__(name, model, linear, linear.in_features)
        self._tap = [tap]  # in a list: it is a part of the backbone already

    def features(self, x: Tensor) -> Tensor:
        """Return the input of the last layer."""
        (tap,) = self._tap
        self.backbone(x)
        return tap.take()


class Undivided(Wrapped):
    """A model without a last linear layer to find: its logits are its features."""

    def __init__(self, name: str, model: nn.Module, num_classes: int) -> None:
        super().__init__(name, model, nn.Identity(), num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.backbone(x)


class _Tap(nn.Module):
    """Stands where a linear layer was, with all its attributes; computes the same, and records the input."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._linear = [linear]  # in a list: the layer's weights belong to the classifier
        self._input: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer."""
        self._input = x
        return self._linear[0](x)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the layer."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(vars(self)["_linear"][0], name)

    def take(self) -> Tensor:
        """Return the input, and forget it."""
        recorded_input, self._input = self._input, None
        assert recorded_input is not None
        return recorded_input


_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def _units(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the children of a model in order, and the members of a child that is a list of modules."""
    for child in module.children():
        if isinstance(child, _LISTS):
            yield from _units(child)
        else:
            yield child


def cannot_take(name: str, shape: tuple[int, ...], error: Exception) -> UserError:
    """Return the error for a model that raises an exception for images of a shape, [C, H, W] or a batch."""
    images = "x".join(map(str, shape[-3:]))
    batch = f" in a batch of {shape[0]}" if len(shape) == 4 else ""
    return UserError(f"{name} cannot take {images} images{batch}: {cause(error)}")
