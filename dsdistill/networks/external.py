"""Networks of torchvision and timm with random weights, split into an embedding and a classifier."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import nn

from dsdistill.errors import UserError, unknown
from dsdistill.networks.base import Network
from dsdistill.networks.wrapped import Split, cannot_take

# Two models have auxiliary classifiers, which are switched off, and a default initialisation that warns.
_SPECIAL = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def torchvision_network(model: str, channels: int, size: int, num_classes: int) -> Network:
    """Make torchvision's classifier ``model``; its first convolution is replaced unless channels is 3.

    Raises:
        UserError: if there is no such model, it has no final linear layer, or it cannot take the size.
    """
    check_torchvision(model)
    name = f"torchvision:{model}"
    models = torchvision_models()
    options: dict[str, object] = dict(_SPECIAL.get(model, {}))
    if model.startswith("vit_"):
        options["image_size"] = size
    try:
        backbone = models.get_model(model, weights=None, num_classes=num_classes, **options)
    except (AssertionError, ValueError) as error:
        raise cannot_take(name, (channels, size, size), error) from error
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
    return _validated(Split(name, backbone, linears[-1]), channels, size)


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
        raise cannot_take(name, (channels, size, size), error) from error
    head = backbone.get_classifier()
    if not isinstance(head, nn.Linear):
        raise UserError(f"{name} does not end in one linear layer to split off; choose another model")
    path = next(path for path, module in backbone.named_modules() if module is head)
    return _validated(Split(name, backbone, path), channels, size)


def check_torchvision(model: str) -> None:
    """Raise a UserError unless torchvision has the image classifier ``model``."""
    models = torchvision_models()
    known = models.list_models(module=models)
    if model not in known:
        raise unknown("torchvision model", model, known)


def check_timm(model: str) -> None:
    """Raise a UserError unless timm is installed and has ``model``."""
    timm = _timm()
    if not timm.is_model(model):
        raise unknown("timm model", model, timm.list_models())


def torchvision_models() -> Any:
    """Import torchvision's models, which takes a moment.

    Raises:
        UserError: torchvision does not fit to this torch.
    """
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
        raise UserError('timm networks need timm: pip install "dsdistill[timm]"') from error
    return timm


def _validated(network: Split, channels: int, size: int) -> Split:
    """Return the network if it can embed a blank image: libraries do not document the sizes they accept.

    Raises:
        UserError: it cannot.
    """
    network.eval()  # in training mode, batch norm refuses one image and updates its running statistics
    blank = next(network.parameters()).new_zeros(1, channels, size, size)
    with torch.no_grad():
        shape = network.embed(blank).shape
    if shape != (1, network.feature_dim):
        raise UserError(f"{network.name} does not embed an image as one vector; choose another model")
    network.train()
    return network
