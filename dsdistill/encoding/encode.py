"""A set whose images are coded in a few bits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import torch

from dsdistill.config.storage import CodingConfig, bytes_of_budget
from dsdistill.encoding.refine import refined
from dsdistill.encoding.search import bytes_of, coded
from dsdistill.errors import UserError
from dsdistill.networks import Network, build_network
from dsdistill.plugs import names_in
from dsdistill.runtime.notice import Notify, silent
from dsdistill.seeding import forked
from dsdistill.storage.set_sizes import sizes_of
from dsdistill.synthetic.coded import CodedPixels, check_patch
from dsdistill.synthetic.distilled import DistilledSet, Scalar

_REFINED = "refine"
"""The attribute that says in how many steps codes were refined."""
_FEWEST_BITS = 1
NETWORK = "convnet3"
"""Whose features refining keeps, where a set does not say in which network it was distilled."""


def encoded(
    distilled: DistilledSet,
    config: CodingConfig,
    network: str = "",
    device: torch.device | None = None,
    seed: int = 0,
    tick: Callable[[int], None] = lambda done: None,
    notify: Notify = silent,
) -> DistilledSet:
    """Return a set whose images are coded, decoded again, with all else as it was.

    Args:
        network: an architecture, for refining; empty takes that in which the set was distilled.
        device: for refining; None for the CPU.
        seed: of every draw.
        tick: called with the number of steps of refining that are done.
        notify: receives a sentence where no refined images fit into the budget.

    Raises:
        UserError: the set has views, of which a teacher has seen the images as they are; nothing fits into
            the budget, or a pixel into float16; a patch is larger than an image; or images that are decoded
            further are to be refined.
    """
    if distilled.views is not None:
        raise UserError(
            "a teacher has answered to views of the images as they are: encode the set first, then label it"
        )
    attributes = {key: value for key, value in distilled.attributes.items() if key != _REFINED}
    plain = dataclasses.replace(distilled, coded=None, attributes=attributes)
    if config.refine and not plain.is_plain:
        raise UserError(
            "refining is for sets whose stored images are training images, and these are decoded first: "
            "leave out refine"
        )
    room = _room(plain, config)
    pixels = coded(plain.images, config, room)
    if not config.refine:
        return with_coded(plain, pixels)
    device = device or torch.device("cpu")
    images, preprocess = plain.images.to(device), plain.preprocess.to(device)
    fresh = _networks(plain, network, device, seed)

    too_large: list[CodedPixels] = []

    def fits(other: CodedPixels) -> bool:
        if room is None or bytes_of(other) <= room:
            return True
        too_large.append(other)  # other codes compress less
        return False

    better = refined(pixels, images, fresh, preprocess, config.refine, seed, tick, fits)
    if too_large and better is pixels:
        notify("refined images take more bytes than the budget leaves, so they are coded without refining")
        return with_coded(plain, pixels)
    return with_coded(plain, better, {_REFINED: config.refine})


def check(config: CodingConfig, shape: tuple[int, int, int], classes: int) -> None:
    """Check before a long run what can be known of a coding.

    Args:
        shape: C, H, W of an image.

    Raises:
        UserError: a patch is larger than an image, or the budget below one image of one bit a pixel.
    """
    patch, _ = config.resolved(_FEWEST_BITS if config.bits == "auto" else config.bits)
    check_patch(patch, shape)
    pixels = math.prod(shape)
    if config.budget and 8 * bytes_of_budget(config.budget, 4 * pixels, classes) < pixels:
        raise UserError(
            f"a budget of {config.budget!r} is below one image of {pixels:,} pixels at one bit each: name "
            "more bytes"
        )


def _networks(
    distilled: DistilledSet, name: str, device: torch.device, seed: int
) -> Callable[[int], Network]:
    """Return a function from a step of refining to its network, with random weights."""
    name = name or next(iter(names_in(str(distilled.attributes.get("network", "")))), "") or NETWORK
    channels, size = distilled.images.shape[1:3]

    def fresh(step: int) -> Network:
        with forked(seed, "refine-network", step):
            built = build_network(name, channels, size, len(distilled.classes))
        return built.to(device).requires_grad_(False).eval()

    return fresh


def with_coded(
    distilled: DistilledSet, pixels: CodedPixels, attributes: Mapping[str, Scalar] | None = None
) -> DistilledSet:
    """Return a set with the images of coded pixels in place of its own."""
    more = {**distilled.attributes, **(attributes or {})}
    return dataclasses.replace(distilled, images=pixels.decode(), coded=pixels, attributes=more)


def _room(distilled: DistilledSet, config: CodingConfig) -> int | None:
    """Return the bytes that a budget leaves for images; None without one."""
    if not config.budget:
        return None
    image_bytes = 4 * distilled.images[0].numel()
    budget = bytes_of_budget(config.budget, image_bytes, len(distilled.classes))
    sizes = sizes_of(distilled)
    others = sizes.label_bytes + sizes.compensator_bytes
    return budget - others
