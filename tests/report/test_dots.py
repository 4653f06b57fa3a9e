"""Dot plots: every row at its value, with a bar as long as its deviation."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest

from dsdistill.report import dots
from dsdistill.report.dots import Dot, Kind
from tests.helpers.reports import by_class, elements

DOTS = [
    Dot("mtt", 61.5, 0.4, "61.50 ± 0.40", Kind.DISTILLED, "#cell-mtt", best=True),
    Dot("random@bytes of mtt", 58.0, 3.0, "58.00 ± 3.00", Kind.REAL_BYTES),
    Dot("random", 41.0, 12.0, "41.00 ± 12.00", Kind.REAL),
    Dot("dm", 40.0, 0.0, "40.00", Kind.DISTILLED, "#cell-dm"),
    Dot("full", 93.0, 0.1, "93.00 ± 0.10", Kind.FULL),
]


def values_at(root: ElementTree.Element) -> Callable[[str], float]:
    """Return the function from places to values that an axis's ticks say."""
    ticks = [(percent(each.attrib["x"]), float(each.text or "")) for each in by_class(root, "tick")]
    (x0, v0), (x1, v1) = ticks[0], ticks[-1]
    return lambda place: v0 + (v1 - v0) * (percent(place) - x0) / (x1 - x0)


def percent(place: str) -> float:
    return float(place.removesuffix("%"))


def drawn(each: list[Dot], reference: float | None = None) -> ElementTree.Element:
    return ElementTree.fromstring(dots.draw(each, dots.frame(each), reference, "accuracy", "rows").html)


def test_rows_are_at_their_values_and_bars_reach_one_deviation() -> None:
    root = drawn(DOTS, reference=41.0)
    value, rows = values_at(root), by_class(root, "dot")
    assert len(rows) == len(DOTS)
    for dot, row in zip(DOTS, rows, strict=True):
        (mark,) = elements(row, "svg")
        assert value(mark.attrib["x"]) == pytest.approx(dot.mean, abs=0.01)
        ends = [value(each.attrib[key]) for each in by_class(row, "bar") for key in ("x1", "x2")]
        assert ends == pytest.approx([dot.mean - dot.std, dot.mean + dot.std] if dot.std else [], abs=0.01)
    (rule,) = by_class(root, "rule")
    assert value(rule.attrib["x1"]) == pytest.approx(41.0, abs=0.01)


def test_names_dots_and_figures_of_a_row_are_level_and_in_order() -> None:
    root = drawn(DOTS)
    assert [each.text for each in by_class(root, "name")] == [dot.name for dot in DOTS]
    assert [each.text for each in by_class(root, "value")] == [dot.text for dot in DOTS]
    marks = [float(elements(row, "svg")[0].attrib["y"]) for row in by_class(root, "dot")]
    assert marks == sorted(marks)
    for kind in ("name", "value"):
        lines = [float(each.attrib["y"]) for each in by_class(root, kind)]
        assert [line - mark for line, mark in zip(lines, marks, strict=True)] == [4.0] * len(DOTS)
    assert by_class(root, "rule") == []


def test_a_row_leads_somewhere_and_is_one_stop_of_the_tabulator() -> None:
    links = elements(drawn(DOTS), "a")
    assert [each.attrib["href"] for each in links] == ["#cell-mtt", "#cell-dm"] * 3  # names, dots, figures
    assert [each.attrib["href"] for each in links if each.attrib["tabindex"] == "0"] == [
        "#cell-mtt",
        "#cell-dm",
    ]


def test_kinds_differ_in_shape_and_the_key_explains_those_present() -> None:
    drawn = {kind: dots.shape(kind) for kind in Kind}
    assert drawn[Kind.REAL_BYTES].startswith("<rect")
    assert len(set(drawn.values())) == len(Kind)
    key = dots.key([Kind.DISTILLED, Kind.REAL])
    assert key.count("<li>") == 2
    assert "full" not in key


def test_charts_have_a_name_and_a_description() -> None:
    drawing = dots.draw(DOTS, dots.frame(DOTS), None, "accuracy & <b>", "five rows")
    for text in (drawing.html, drawing.at(0, 0).replace(" xmlns=", " xmlns:a=")):
        root = ElementTree.fromstring(text)
        assert "accuracy & <b>" in [each.text for each in elements(root, "title")]
        assert [each.text for each in elements(root, "desc")] == ["five rows"]


def test_plots_side_by_side_share_their_axis_and_columns() -> None:
    within = dots.frame(DOTS)
    one, other = (dots.draw(each, within, None, "", "") for each in (DOTS[:2], DOTS[2:]))
    assert (one.left, one.right) == (other.left, other.right)
    ticks = [
        [(each.attrib["x"], each.text) for each in by_class(ElementTree.fromstring(plot.html), "tick")]
        for plot in (one, other)
    ]
    assert ticks[0] == ticks[1]


def test_long_names_leave_room_for_dots() -> None:
    long = Dot("a very long name of a method, evaluation own", 50.0, 10.0, "100.00 ± 100.00", Kind.DISTILLED)
    within = dots.frame([long])
    assert dots.WIDTH - within.left - within.right > 80
    (name,) = by_class(drawn([long]), "name")
    assert (name.text or "").endswith("…")
    assert f"{long.name}: " in (elements(drawn([long]), "title")[0].text or "")  # whole where one points
