"""The first images of each class of a set that was made for several sizes: a set of its own."""

from __future__ import annotations

import dataclasses

import torch

from dsdistill.config.sizes import as_attribute, of_attribute
from dsdistill.errors import UserError
from dsdistill.synthetic.distilled import DistilledSet


def sizes_of(distilled: DistilledSet) -> tuple[int, ...]:
    """Return the sizes that a set was made for, ascending; empty where it is good as a whole only."""
    return of_attribute(distilled.attributes.get("sizes", ""))


def prefix(distilled: DistilledSet, ipc: int) -> DistilledSet:
    """Return the set of the first ``ipc`` stored images of each class.

    Soft labels, weights and targets are those of the images that stay. Stored views are left out: they are
    of batches of all images. The attribute ``first`` says how many images stay. A set is its own prefix at
    its own IPC.

    Raises:
        UserError: the set was not made for that size; or its soft labels are of images that are decoded
            otherwise where a class has fewer.
    """
    if set(distilled.counts) == {ipc} and distilled.compensators is None:
        return distilled
    sizes = sizes_of(distilled)
    if ipc not in sizes:
        if not sizes:
            raise UserError(
                f"the first {ipc} images of a class are no set of their own, being learned with the others: "
                "distil a set of several sizes by --method mdc, or one with that --ipc"
            )
        *others, last = map(str, sizes)
        known = f"{', '.join(others)} or {last}" if others else last
        raise UserError(f"the set was made for {known} images of a class, not {ipc}; choose one of these")
    rows = torch.cat([torch.arange(count) < ipc for count in distilled.counts])
    weights, soft, targets = distilled.sample_weights, distilled.soft_labels, distilled.targets
    if soft is not None and len(soft) != len(rows):
        if distilled.multi_formation.mode == "bound":
            raise UserError(
                "the soft labels are of images that are decoded otherwise where a class has fewer: take the "
                "whole set"
            )
        soft = soft[rows[distilled.origins()]]
    elif soft is not None:
        soft = soft[rows]
    attributes = {**distilled.attributes, "ipc": ipc, "first": ipc}
    attributes["sizes"] = as_attribute([size for size in sizes if size <= ipc])
    return dataclasses.replace(
        distilled,
        images=distilled.images[rows],
        labels=distilled.labels[rows],
        soft_labels=soft,
        sample_weights=None if weights is None else weights[rows],
        targets=None if targets is None else targets[rows],
        views=None,
        coded=None if distilled.coded is None else distilled.coded[rows],
        attributes=attributes,
    )
