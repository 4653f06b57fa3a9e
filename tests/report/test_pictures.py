"""Images on the page: under the names of their classes, and described."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from dsdistill.bench.collection import collect
from dsdistill.report import figures
from dsdistill.report.pictures import pictures
from tests.helpers.bench import result
from tests.helpers.reports import Page, small_set, stored


def test_a_picture_has_the_names_of_its_classes_and_leads_to_its_cell(tmp_path: Path) -> None:
    stored(tmp_path, result())
    stored(tmp_path, result(seed=1))
    text = pictures(collect(tmp_path)[0])
    assert Page(text).links == [f"#{figures.anchor(result())}"]  # the first seed
    assert re.findall(r"<span>([^<]*)</span>", text) == ["class 0", "class 1", "class 2"]
    (alt,) = re.findall(r'alt="([^"]*)"', text)
    assert alt == "Distilled images of cifar10 by dm; columns: class 0, class 1, class 2"
    assert "--classes:3" in text


def test_names_of_classes_are_escaped_and_bounded(tmp_path: Path) -> None:
    names = ("<b>&", "a" * 500, "\x1b[31m")
    stored(tmp_path, result(), dataclasses.replace(small_set(), classes=names))
    text = pictures(collect(tmp_path)[0])
    Page(text)
    assert re.findall(r"<span>([^<]*)</span>", text) == ["&lt;b&gt;&amp;", "a" * 23 + "…", "\\x1b[31m"]
    assert "<b>" not in text
    assert max(map(len, re.findall(r'alt="([^"]*)"', text))) < 1000


def test_there_are_no_pictures_without_files() -> None:
    assert pictures([result()]) == ""
