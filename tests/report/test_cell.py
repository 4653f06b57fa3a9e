"""Cells on the page."""

from __future__ import annotations

from dsdistill.report import cell
from tests.helpers.bench import result


def test_what_comes_on_top_of_bytes_is_said() -> None:
    whitened = result()
    assert "whitening" not in cell.articles([whitened])
    whitened.report["cost"]["preprocess_bytes"] = 37.7e6
    assert "whitening takes 37,700.0 kB more" in cell.articles([whitened])


def test_versions_are_read_in_either_form() -> None:
    found = result()
    assert cell.version(found) == ""
    for packages in ({"dsdistill": "0.1.0"}, '{"dsdistill": "0.1.0"}'):
        found.report["packages"] = packages
        assert cell.version(found) == "0.1.0"
    for packages in ("{", 3, None, []):
        found.report["packages"] = packages
        assert cell.version(found) == ""
