"""The first images of each class, as a set of their own."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dsdistill.encoding.encode import with_coded
from dsdistill.errors import UserError
from dsdistill.synthetic.coded import Coding, encode
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.multi_formation import Mode, MultiFormation
from dsdistill.synthetic.prefix import prefix, sizes_of
from tests.helpers.labels import with_views
from tests.helpers.storage import make, with_compensators

SIZES = {"method": "mdc", "sizes": "1,2,4", "ipc": 4}


def of_sizes(**fields: object) -> DistilledSet:
    """Return a set of three classes of four images."""
    return make(attributes=SIZES, **fields)


def test_it_holds_the_first_images_of_each_class() -> None:
    whole = of_sizes(sample_weights=torch.arange(12.0), soft_labels=torch.arange(36.0).view(12, 3))
    part = prefix(whole, 2)
    rows = [0, 1, 4, 5, 8, 9]
    assert torch.equal(part.images, whole.images[rows])
    assert part.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert part.sample_weights.tolist() == rows
    assert torch.equal(part.soft_labels, whole.soft_labels[rows])
    assert part.attributes == {"method": "mdc", "sizes": "1,2", "ipc": 2, "first": 2}
    assert torch.equal(prefix(part, 1).images, prefix(whole, 1).images)
    assert sizes_of(prefix(part, 1)) == (1,)


@pytest.mark.parametrize("groups", [0, 3])
def test_coded_images_stay_coded(groups: int) -> None:
    whole = of_sizes()
    whole = with_coded(whole, encode(whole.images, Coding(2, 4, groups)))
    part = prefix(whole, 2)
    assert part.coded is not None
    assert torch.equal(part.images, whole.images[[0, 1, 4, 5, 8, 9]])


def test_a_set_is_its_own_prefix() -> None:
    for whole in (of_sizes(), make()):
        assert prefix(whole, 4) is whole


@pytest.mark.parametrize("mode", ["single", "multi", "bound"])
def test_it_is_decoded_as_a_set_of_its_own(mode: Mode) -> None:
    whole = of_sizes(multi_formation=MultiFormation(factor=2, mode=mode, bound=10))
    part = prefix(whole, 2)
    images, origins = part.decode()
    alone = dataclasses.replace(whole, images=part.images, labels=part.labels)
    assert torch.equal(images, alone.decode()[0])
    assert torch.equal(origins, alone.origins())


@pytest.mark.parametrize("mode", ["single", "multi"])
def test_labels_of_decoded_images_stay_with_them(mode: Mode) -> None:
    """A label here says which pixels it belongs to."""
    whole = of_sizes(multi_formation=MultiFormation(factor=2, mode=mode))
    labels = whole.decode()[0].flatten(1)[:, :3].contiguous()
    part = prefix(dataclasses.replace(whole, soft_labels=labels), 2)
    assert torch.equal(part.soft_labels, part.decode()[0].flatten(1)[:, :3])


def test_labels_of_images_that_are_decoded_otherwise_are_refused() -> None:
    whole = of_sizes(multi_formation=MultiFormation(factor=2, mode="bound", bound=10))
    labelled = dataclasses.replace(whole, soft_labels=torch.zeros(whole.decoded_count, 3))
    with pytest.raises(UserError, match="soft labels are of images that are decoded otherwise"):
        prefix(labelled, 2)


def test_views_are_left_out() -> None:
    assert prefix(dataclasses.replace(with_views(), attributes=SIZES), 2).views is None


@pytest.mark.parametrize("ipc", [0, -1, 3, 5])
def test_sizes_that_a_set_was_not_made_for_are_refused(ipc: int) -> None:
    with pytest.raises(UserError, match=f"made for 1, 2 or 4 images of a class, not {ipc}; choose one of"):
        prefix(of_sizes(), ipc)


def test_other_sets_say_why_they_have_no_prefix() -> None:
    for whole in (make(), with_compensators(), make(attributes={"sizes": "several"})):
        with pytest.raises(
            UserError, match="the first 2 images of a class are no set of their own"
        ) as refused:
            prefix(whole, 2)
        assert "--method mdc" in str(refused.value)
