"""The first images of each class of a set that was made for several sizes: a set of its own."""

from __future__ import annotations

import dataclasses

import torch

from dsdistill.config.sizes import as_attribute, of_attribute
from dsdistill.errors import UserError
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.text import either


def sizes_of(distilled: DistilledSet) -> tuple[int, ...]:
    """Return the sizes that a set was made for, ascending; empty where it is good as a whole only."""
    return of_attribute(distilled.attributes.get("sizes", ""))


def prefix(distilled: DistilledSet, ipc: int) -> DistilledSet:
    """Return the set of the first ``ipc`` stored images of each class.

    Soft labels and weights are those of the images that stay. Stored views are left out: they are of batches
    of all images. A set is its own prefix at its own IPC.

    Raises:
        UserError: the set was not made for that size; or its soft labels are of images that are decoded otherwise
            among fewer.
    """
    if set(distilled.counts) == {ipc} and distilled.compensators is None:
        return distilled
    sizes = sizes_of(distilled)
    if ipc not in sizes:
        if not sizes:
            raise UserError(
                f"the first {ipc} images of a class are no good set here: they were learned together with the "
                "others. Distil with --method mdc (sizes=[…]) for a set of several sizes, or with a smaller --ipc"
            )
        raise UserError(f"the set was made for {either(sizes)} images of a class, not {ipc}; choose one of these")
    rows = torch.cat([torch.arange(count) < ipc for count in distilled.counts])
    kept = {"images": distilled.images[rows], "labels": distilled.labels[rows]}
    weights, soft = distilled.sample_weights, distilled.soft_labels
    if soft is not None and len(soft) != len(rows):
        if distilled.multi_formation.mode == "bound":
            raise UserError(
                "the soft labels are of images that are decoded otherwise where a class has fewer; leave out ipc"
            )
        soft = soft[rows[distilled.origins()]]
    elif soft is not None:
        soft = soft[rows]
    attributes = {**distilled.attributes, "ipc": ipc}
    attributes["sizes"] = as_attribute([size for size in sizes if size <= ipc])
    return dataclasses.replace(
        distilled,
        **kept,
        soft_labels=soft,
        sample_weights=None if weights is None else weights[rows],
        views=None,
        attributes=attributes,
    )
