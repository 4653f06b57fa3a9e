"""Curves: one method before all others, on axes they share; and small ones of losses."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from dsdistill.report import curves
from dsdistill.report.curves import Mark, spark, thinned
from dsdistill.report.scales import linear, logarithmic
from tests.helpers.reports import by_class, elements

OWN = [Mark(1, 10, 2.0, "dm: 10 %", "#cell-dm"), Mark(10, 20), Mark(100, 40)]
SCALES = (logarithmic([1, 100], curves.LEFT, curves.RIGHT), linear([0, 50], curves.BOTTOM, curves.TOP))


def test_points_are_on_a_logarithmic_and_a_linear_axis() -> None:
    root = ElementTree.fromstring(curves.draw([OWN], [], [], SCALES, "dm").html)
    xs, ys = ([float(each.attrib[key]) for each in by_class(root, "mark")] for key in ("cx", "cy"))
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.02)
    assert ys[1] - ys[2] == pytest.approx(2 * (ys[0] - ys[1]), abs=0.02)  # upwards
    (bar,) = by_class(root, "bar")
    length = float(bar.attrib["y2"]) - float(bar.attrib["y1"])
    assert length == pytest.approx(2 * 2.0 * (ys[0] - ys[1]) / 10, abs=0.05)
    assert {"1", "10", "100", "40.0"} <= {each.text for each in elements(root, "text")}


def test_one_method_stands_before_the_others_and_real_images() -> None:
    others, real = [[Mark(2, 30)], [Mark(1, 5), Mark(9, 6)]], [[Mark(1, 15), Mark(100, 15)]]
    root = ElementTree.fromstring(curves.draw([OWN], others, real, SCALES, "dm").html)
    order = [each.attrib["class"] for each in root.iter() if each.attrib.get("class") in KINDS]
    assert order == list(KINDS)
    (grey,), (dashed,) = by_class(root, "others"), by_class(root, "rule")
    assert grey.attrib["d"].count("M") == 2
    assert grey.attrib["d"].count("h.01") == 1  # a point alone is a dot
    assert dashed.attrib["d"].count("L") == 1
    assert [each.attrib["href"] for each in elements(root, "a")] == ["#cell-dm"]


KINDS = ("others", "rule", "line")


def test_points_without_a_place_are_known() -> None:
    marks = (Mark(0.0, 5.0), Mark(float("nan"), 5.0), Mark(1.0, float("inf")), Mark(1.0, 5.0))
    assert [mark.drawable for mark in marks] == [False, False, False, True]


def test_a_small_curve_says_where_it_begins_and_ends() -> None:
    drawing = spark([(1, 2.0), (2, float("nan")), (3, 0.5)], "loss of dm")
    assert drawing is not None
    assert drawing.about == "From 2 to 0.5."
    assert [each.text for each in elements(ElementTree.fromstring(drawing.html), "text")] == ["2", "0.5"]
    assert spark([(1, 2.0)], "") is None
    assert spark([(1, 2.0), (2, 2.0)], "") is not None  # level


def test_curves_are_thinned_to_means() -> None:
    thin = thinned([(float(at), float(at % 2)) for at in range(1000)])
    assert len(thin) <= 120
    assert all(0.4 < value < 0.6 for _, value in thin[:-1])
    assert thin[-1][0] == 999
