"""Networks of torchvision and timm with random weights, split into an embedding and a classifier."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from dsdistill.errors import UserError, unknown
from dsdistill.networks.base import Network


class External(Network):
    """A model of a library; its last linear layer becomes ``classifier``."""

    def __init__(self, name: str, backbone: nn.Module, head: str) -> None:
        super().__init__()
        linear = backbone.get_submodule(head)
        assert isinstance(linear, nn.Linear)
        backbone.set_submodule(head, nn.Identity())
        for module in backbone.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]
        self.name = name
        self.backbone = backbone
        self.classifier = linear
        self.feature_dim = linear.in_features

    def embed(self, x: Tensor) -> Tensor:
        """Return the input of the classifier, [B, feature_dim]."""
        return self.backbone(x)

    def trace(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the feature maps and the embedding.

        timm names the last map of each stage. For a torchvision model, take the last square map [B, c, h, h]
        of each resolution above one pixel, except outputs of pooling; its transformers have few such maps.

        Raises:
            UserError: if the model has no such maps.
        """
        model: Any = self.backbone
        if hasattr(model, "forward_intermediates"):
            last, maps = model.forward_intermediates(x)
            return maps, model.forward_head(last, pre_logits=True)
        last_maps: dict[int, Tensor] = {}

        def record(_module: nn.Module, _inputs: object, out: object) -> None:
            if isinstance(out, Tensor) and out.ndim == 4 and out.shape[2] == out.shape[3] > 1:
                last_maps[out.shape[2]] = out

        hooks = [unit.register_forward_hook(record) for unit in _units(model) if not isinstance(unit, _POOLS)]
        try:
            embedding = self.embed(x)
        finally:
            for hook in hooks:
                hook.remove()
        if not last_maps:
            raise UserError(
                f"{self.name} has no feature maps to match at this size; use a convolutional network"
            )
        return list(last_maps.values()), embedding


_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)

# Two models have auxiliary classifiers, which are switched off, and a default initialisation that warns.
_SPECIAL = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def torchvision_network(model: str, channels: int, size: int, num_classes: int) -> Network:
    """Make torchvision's classifier ``model``; its first convolution is replaced unless channels is 3.

    Raises:
        UserError: if there is no such model, it has no final linear layer, or it cannot take the size.
    """
    check_torchvision(model)
    name = f"torchvision:{model}"
    models = _torchvision_models()
    options: dict[str, object] = dict(_SPECIAL.get(model, {}))
    if model.startswith("vit_"):
        options["image_size"] = size
    try:
        backbone = models.get_model(model, weights=None, num_classes=num_classes, **options)
    except (AssertionError, ValueError) as error:
        raise _cannot_take(name, channels, size, error) from error
    if channels != 3:
        path: str
        conv: Any
        path, conv = next((p, m) for p, m in backbone.named_modules() if isinstance(m, nn.Conv2d))
        backbone.set_submodule(
            path,
            nn.Conv2d(
                channels,
                conv.out_channels,
                conv.kernel_size,
                conv.stride,
                conv.padding,
                bias=conv.bias is not None,
            ),
        )
    linears = [path for path, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    if not linears or backbone.get_submodule(linears[-1]).out_features != num_classes:
        raise UserError(f"{name} does not end in a linear layer to split off; choose another model")
    return _validated(External(name, backbone, linears[-1]), channels, size)


def timm_network(model: str, channels: int, size: int, num_classes: int) -> Network:
    """Make timm's ``model``, for the image size if the shapes of its weights depend on it.

    Raises:
        UserError: if timm is missing, has no such model, or the model cannot take the size.
    """
    check_timm(model)
    timm = _timm()
    name = f"timm:{model}"
    options: dict[str, object] = {}
    if timm.models.get_pretrained_cfg_value(model, "fixed_input_size"):
        options["img_size"] = size
    try:
        backbone = timm.create_model(
            model, pretrained=False, num_classes=num_classes, in_chans=channels, **options
        )
    except (AssertionError, ValueError) as error:
        raise _cannot_take(name, channels, size, error) from error
    head = backbone.get_classifier()
    if not isinstance(head, nn.Linear):
        raise UserError(f"{name} does not end in one linear layer to split off; choose another model")
    path = next(path for path, module in backbone.named_modules() if module is head)
    return _validated(External(name, backbone, path), channels, size)


def check_torchvision(model: str) -> None:
    """Raise a UserError unless torchvision has the image classifier ``model``."""
    models = _torchvision_models()
    known = models.list_models(module=models)
    if model not in known:
        raise unknown("torchvision model", model, known)


def check_timm(model: str) -> None:
    """Raise a UserError unless timm is installed and has ``model``."""
    timm = _timm()
    if not timm.is_model(model):
        raise unknown("timm model", model, timm.list_models())


def _torchvision_models() -> ModuleType:
    try:
        import torchvision.models
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise UserError(
            f"torchvision does not load ({error}); install the build that matches your torch"
        ) from error
    return torchvision.models


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise UserError("timm networks need timm: pip install timm") from error
    return timm


def _units(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the children of a model in order, and the members of a child that is a sequence."""
    for child in module.children():
        if isinstance(child, nn.Sequential):
            yield from _units(child)
        else:
            yield child


def _validated(network: External, channels: int, size: int) -> External:
    """Return the network if it can embed a blank image: libraries do not document the sizes they accept."""
    network.eval()  # in training mode, batch norm refuses one image and updates its running statistics
    blank = next(network.parameters()).new_zeros(1, channels, size, size)
    try:
        with torch.no_grad():
            shape = network.embed(blank).shape
    except (AssertionError, RuntimeError, ValueError, IndexError) as error:
        raise _cannot_take(network.name, channels, size, error) from error
    if shape != (1, network.feature_dim):
        raise UserError(f"{network.name} does not embed an image as one vector; choose another model")
    network.train()
    return network


def _cannot_take(name: str, channels: int, size: int, error: Exception) -> UserError:
    reason = str(error).strip().split("\n")[0]
    return UserError(f"{name} cannot take {channels}x{size}x{size} images: {reason}")
