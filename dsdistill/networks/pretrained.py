"""Weights that torchvision and timm publish for their image classifiers, from the cache of this machine.

They are fetched only if the caller asks for it. Files are checked against the hash that their names carry,
and read as tensors alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dsdistill import files
from dsdistill.errors import UserError, unknown
from dsdistill.networks.base import Network
from dsdistill.networks.external import (
    check_timm,
    check_torchvision,
    timm_network,
    torchvision_network,
)
from dsdistill.networks.wrapped import Split
from dsdistill.seeding import forked

DEFAULT = "DEFAULT"


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A classifier with published weights.

    Attributes:
        network: for all its classes.
        classes: their names, in order.
        mean, std: of the channels of unit pixels that it was trained with.
        name: for people.
    """

    network: Network
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str


def pretrained(model: str, weights: str, size: int, download: bool = False) -> Pretrained:
    """Load a library's model with its published weights.

    Args:
        model: ``torchvision:NAME`` or ``timm:NAME``.
        weights: their name, such as ``IMAGENET1K_V1``, or ``DEFAULT``.
        size: of the images, in pixels.
        download: fetch the weights where this machine lacks them.

    Raises:
        UserError: there is no such model or there are no such weights; they are not on this machine and
            ``download`` is false, or cannot be fetched; their file is damaged.
    """
    library, _, name = model.partition(":")
    load: dict[str, Callable[[str, str, int, bool], Pretrained]] = {
        "torchvision": _torchvision,
        "timm": _timm,
    }
    if library not in load:
        raise unknown("library of pretrained networks", library, load)
    return load[library](name, weights, size, download)


def restricted(network: Network, rows: Tensor) -> Network:
    """Keep some classes of a network that ends in a linear layer, in place.

    Args:
        rows: int64 [K], the numbers of the classes to keep, in their new order.

    Raises:
        UserError: its classifier is no linear layer.
    """
    layer = network.classifier
    if not isinstance(layer, nn.Linear):
        raise UserError("classes can be chosen only of a network that ends in one linear layer")
    chosen = nn.Linear(layer.in_features, len(rows), bias=layer.bias is not None)
    with torch.no_grad():
        chosen.weight.copy_(layer.weight[rows])
        if layer.bias is not None:
            chosen.bias.copy_(layer.bias[rows])
    network.classifier = chosen
    return network


def _torchvision(model: str, weights: str, size: int, download: bool) -> Pretrained:
    check_torchvision(model)
    from torchvision import models

    known = models.get_model_weights(model)
    try:
        entry = known[weights]
    except KeyError:
        raise unknown(f"weights of torchvision:{model}", weights, [*known.__members__, DEFAULT]) from None
    name = f"torchvision:{model}@{entry.name}"
    path = Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rpartition("/")[2]
    if not path.exists():
        _check_allowed(name, path, download)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(entry.url, str(path), _hash_of(path), progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError(f"{name} cannot be fetched: {files.reason(error)}") from error
    transforms, classes = entry.transforms(), tuple(entry.meta["categories"])
    with forked(0, "pretrained"):
        network = torchvision_network(model, 3, size, len(classes))
    _load(network, _state(path), name)
    return Pretrained(network, classes, tuple(transforms.mean), tuple(transforms.std), name)


def _timm(model: str, weights: str, size: int, download: bool) -> Pretrained:
    check_timm(model)
    import timm
    from torchvision import models

    config: Any = timm.models.get_pretrained_cfg(model if weights == DEFAULT else f"{model}.{weights}")
    name = f"timm:{model}" + ("" if weights == DEFAULT else f"@{weights}")
    if config is None or not config.hf_hub_id or config.num_classes != 1000:
        raise UserError(f"{name} has no published weights for ImageNet's 1000 classes; choose another model")
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    repository = str(config.hf_hub_id)
    path = try_to_load_from_cache(repository, "model.safetensors")
    if not isinstance(path, str):
        _check_allowed(name, Path(repository), download)
        try:
            path = hf_hub_download(repository, "model.safetensors")
        except Exception as error:  # of requests, httpx, or of the hub itself
            raise UserError(f"{name} cannot be fetched: {files.reason(error)}") from error
    from safetensors.torch import load_file

    classes = tuple(models.ResNet18_Weights.DEFAULT.meta["categories"])
    with forked(0, "pretrained"):
        network = timm_network(model, 3, size, len(classes))
    _load(network, load_file(path), name)
    return Pretrained(network, classes, tuple(config.mean), tuple(config.std), name)


def _check_allowed(name: str, path: Path, download: bool) -> None:
    if not download:
        raise UserError(
            f"the weights of {name} are not on this machine ({path}): pass --download to fetch them"
        )


def _hash_of(path: Path) -> str:
    """Return the first digits of the SHA-256 that a file's name carries; empty where it carries none."""
    match = re.search(r"-([0-9a-f]{8,})\.", path.name)
    return match.group(1) if match else ""


def _state(path: Path) -> dict[str, Tensor]:
    """Read weights, tensors alone.

    Raises:
        UserError: the file is damaged, or is not the one its name says.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    if not digest.hexdigest().startswith(_hash_of(path)):
        raise UserError(
            f"{path} is damaged: its SHA-256 is not that in its name; delete it and fetch it again"
        )
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file raises
        raise UserError(f"{path} holds no weights: {files.reason(error)}") from error
    return state


def _load(network: Network, state: dict[str, Tensor], name: str) -> None:
    """Load weights into a model whose classifier was split off, to which the entries that it lacks belong."""
    assert isinstance(network, Split)
    own = network.backbone.state_dict()
    head = {key.rpartition(".")[2]: value for key, value in state.items() if key not in own}
    try:
        network.backbone.load_state_dict({key: value for key, value in state.items() if key in own})
        network.classifier.load_state_dict(head)
    except RuntimeError as error:
        raise UserError(f"the weights of {name} do not fit the network: {files.reason(error)}") from error
