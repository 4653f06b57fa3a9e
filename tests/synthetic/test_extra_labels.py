"""Labels beside hard ones, in words."""

from __future__ import annotations

import dataclasses

import torch

from dsdistill.synthetic.extra_labels import extra_labels, left_out
from tests.helpers.labels import with_views
from tests.helpers.storage import make


def test_extra_labels_are_named() -> None:
    assert extra_labels(make()) == {}
    assert left_out(make(), ("soft_labels",)) == []
    labelled = dataclasses.replace(with_views(mixing="none", keep=0.5), sample_weights=torch.ones(12))
    found = extra_labels(labelled)
    assert list(found) == ["sample_weights", "views"]
    assert found["views"].endswith("views (a share of the batches, unmixed, float16)")
    assert left_out(labelled, ("sample_weights",)) == [
        f"the {found['views']} are left out; the .h5 holds them"
    ]
    assert "weights of images and " in left_out(labelled)[0]
