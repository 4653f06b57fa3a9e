"""Exports by the name of a format or the suffix of the output."""

from __future__ import annotations

from pathlib import Path

import pytest

import dsdistill
from dsdistill.export.run import EXPORTERS
from tests.helpers.callbacks import Closed, Told
from tests.helpers.exports import of_cifar


def test_a_suffix_names_a_format(tmp_path: Path) -> None:
    of_cifar(tmp_path / "set.h5")
    told: list[str] = []
    for name in ("set.pt", "set.tar", "small.h5", "png"):
        assert (
            dsdistill.export_set(tmp_path / "set.h5", tmp_path / name, callbacks=[Told(notify=told.append)])
            == tmp_path / name
        )
        assert (tmp_path / name).exists()
    assert [sentence.partition(":")[0] for sentence in told] == ["uint8", "8-bit PNG"]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    of_cifar(tmp_path / "set.h5")
    for options, match in (
        ({"to": "hff"}, "unknown export format 'hff'; did you mean 'hf'"),
        ({"space": "unit"}, "--space is for pt, not for png"),
        ({"to": "hf", "protocol": "dm"}, "--protocol is for ddranking, not for hf"),
        ({"to": "pt", "space": "lab"}, "unknown space"),
        ({"to": "h5", "dtype": "int4"}, "unknown storage dtype"),
    ):
        with pytest.raises(dsdistill.UserError, match=match):
            dsdistill.export_set(tmp_path / "set.h5", tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
    with pytest.raises(dsdistill.UserError, match=r"suffix '\.zip': end the output in .* webdataset"):
        dsdistill.export_set(tmp_path / "set.h5", tmp_path / "set.zip")


def test_no_two_formats_share_a_suffix() -> None:
    suffixes = [suffix for each in EXPORTERS.values() for suffix in each.suffixes]
    assert len(suffixes) == len(set(suffixes))


def test_callbacks_are_closed_even_if_the_export_is_refused(tmp_path: Path) -> None:
    of_cifar(tmp_path / "set.h5")
    closed = Closed()
    dsdistill.export_set(tmp_path / "set.h5", tmp_path / "set.pt", callbacks=[closed])
    assert closed.times == 1
    with pytest.raises(dsdistill.UserError):
        dsdistill.export_set(tmp_path / "set.h5", tmp_path / "set.zip", callbacks=[closed])
    assert closed.times == 2
