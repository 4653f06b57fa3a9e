"""The terms of data sets."""

from __future__ import annotations

from dsdistill.data import catalog
from dsdistill.data.licences import licence_of


def test_every_data_set_of_the_catalogue_has_terms() -> None:
    names = [name for name in catalog.names() if ":" not in name]
    assert [name for name in names if licence_of(name).terms.startswith("Unknown")] == []
    assert licence_of("folder:pets").id == "unknown"
