"""A set whose images are coded in a few bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch

from dsdistill.config.storage import CodingConfig, bytes_of_budget
from dsdistill.encoding.refine import refined
from dsdistill.encoding.search import bytes_of, coded
from dsdistill.errors import UserError
from dsdistill.networks import Network, build_network
from dsdistill.seeding import forked
from dsdistill.storage import set_file
from dsdistill.synthetic.coded import CodedPixels
from dsdistill.synthetic.distilled import DistilledSet, Scalar

NETWORK = "convnet3"
"""Whose features refining keeps, where a set does not say in which network it was distilled."""


def encoded(
    distilled: DistilledSet,
    config: CodingConfig,
    network: str = "",
    device: torch.device | None = None,
    seed: int = 0,
    tick: Callable[[int], None] = lambda done: None,
) -> DistilledSet:
    """Return a set whose images are coded, decoded again, with all else as it was.

    Args:
        network: an architecture, for refining; empty takes that in which the set was distilled.
        device: for refining; None for the CPU.
        seed: of every draw.
        tick: called with the number of steps of refining that are done.

    Raises:
        UserError: the set has views, of which a teacher has seen the images as they are; nothing fits into
            the budget, or a pixel into float16; or a patch is larger than an image.
    """
    if distilled.views is not None:
        raise UserError(
            "a teacher has answered to views of the images as they are: encode the set first, then label it"
        )
    plain = dataclasses.replace(distilled, coded=None)
    room = _room(plain, config)
    found = coded(plain.images, config, room, seed)
    if not config.refine:
        return with_coded(plain, found)
    device = device or torch.device("cpu")
    images, preprocess = plain.images.to(device), plain.preprocess.to(device)
    fresh = _networks(plain, network, device, seed)
    while True:
        better = refined(found, images, fresh, preprocess, config.refine, seed, tick)
        if room is None or (excess := bytes_of(better) - room) <= 0:
            return with_coded(plain, better, {"refine": config.refine})
        found = coded(plain.images, config, bytes_of(found) - excess, seed)  # other codes compress less


def _networks(
    distilled: DistilledSet, name: str, device: torch.device, seed: int
) -> Callable[[int], Network]:
    """Return a function from a step of refining to its network, with random weights."""
    name = name or str(distilled.attributes.get("network", "")) or NETWORK
    channels, size = distilled.images.shape[1:3]

    def fresh(step: int) -> Network:
        with forked(seed, "refine-network", step):
            built = build_network(name, channels, size, len(distilled.classes))
        return built.to(device).requires_grad_(False).eval()

    return fresh


def with_coded(
    distilled: DistilledSet, found: CodedPixels, attributes: Mapping[str, Scalar] | None = None
) -> DistilledSet:
    """Return a set with the images of coded pixels in place of its own."""
    more = {**distilled.attributes, **(attributes or {})}
    return dataclasses.replace(distilled, images=found.decode(), coded=found, attributes=more)


def _room(distilled: DistilledSet, config: CodingConfig) -> int | None:
    """Return the bytes that a budget leaves for images; None without one."""
    if not config.budget:
        return None
    image_bytes = 4 * distilled.images[0].numel()
    budget = bytes_of_budget(config.budget, image_bytes, len(distilled.classes))
    sizes = set_file.sizes_of(distilled)
    others = sizes.label_bytes + sizes.compensator_bytes
    return budget - others
