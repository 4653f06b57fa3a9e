"""Which charts there are, and what they show."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from dsdistill.bench.lines import lines as joined_lines
from dsdistill.bench.results import CellResult
from dsdistill.report import figures
from dsdistill.report.figures import Figure
from tests.helpers.bench import coded, result, row
from tests.helpers.reports import METHODS, by_class, elements, grid


def root(figure: Figure, panel: int = 0) -> ElementTree.Element:
    return ElementTree.fromstring(figure.panels[panel].drawing.html)


def of_time(*cells: CellResult) -> list[Figure]:
    return figures.over_time(cells, joined_lines(cells))


def test_families_are_charts_of_one_axis() -> None:
    cifar, fashion = figures.accuracies(joined_lines(grid()))
    assert [panel.name for panel in cifar.panels] == [
        f"{ipc} per class, student {network}" for ipc in (1, 10) for network in ("convnet", "resnet18")
    ]
    axes = {tuple(each.text for each in by_class(root(cifar, at), "tick")) for at in range(4)}
    assert len(axes) == 1
    assert (cifar.title, fashion.title) == ("cifar10", "fashion-mnist")
    assert len(by_class(root(cifar), "dot")) == len(METHODS) + 4
    best = [elements(each, "text")[0].text for each in by_class(root(cifar), "best")]
    assert best == [METHODS[-1], "58.00 ± 0.87"]  # of the methods, not of the real images
    assert len(by_class(root(cifar), "rule")) == 1  # random images


def test_several_random_selections_have_no_line_of_their_own() -> None:
    cells = [
        result(method, rows=[row("distilled", [50.0, 51.0]), row("random", [level, level + 1])])
        for method, level in (("dm", 30.0), ("mtt", 35.0))
    ]
    (figure,) = figures.accuracies(joined_lines(cells))
    assert by_class(root(figure), "rule") == []


def test_time_is_an_axis_where_methods_differ_in_it() -> None:
    (figure,) = of_time(result(), result("mtt"))
    assert [panel.name for panel in figure.panels] == ["dm", "mtt"]
    assert figure.title == "cifar10, 1 per class"
    assert len(by_class(root(figure), "mark")) == 2  # the snapshots
    assert root(figure).find(".//{*}path[@class='others']") is not None
    (rule,) = by_class(root(figure), "rule")
    assert rule.attrib["d"].count("L") == 1
    alike = [result(method, curve=[], seconds=seconds) for method, seconds in (("dm", 50.0), ("mtt", 60.0))]
    assert of_time(*alike) == []
    assert len(of_time(alike[0], result("mtt", curve=[], seconds=500.0))) == 1


def test_panels_are_sorted_and_seeds_share_one() -> None:
    better = [result("mtt", seed=seed, curve=[], seconds=90.0 + seed) for seed in (5, 6)]
    (figure,) = of_time(result(curve=[], seconds=10.0), *better)
    assert [panel.name for panel in figure.panels] == ["mtt", "dm"]
    assert len(by_class(root(figure), "mark")) == 2
    assert figure.panels[0].href == f"#{figures.anchor(better[0])}"


def test_bytes_are_an_axis_where_sets_differ_in_them() -> None:
    assert figures.over_bytes(joined_lines([result(), result("mtt")])) == []
    real = row("random", [30.0, 31.0], images=100)
    ten = result(ipc=10, rows=[row("distilled", [50.0, 52.0], images=100), real])
    (figure,) = figures.over_bytes(joined_lines([result(), ten, result("mtt")]))
    assert [panel.name for panel in figure.panels] == ["dm", "mtt"]
    assert len(by_class(root(figure), "mark")) == 2
    assert "dm, 10 per class: 51.00 ± 1.41 % in 100.0 kB" in figure.panels[0].drawing.about
    (rule,) = by_class(root(figure), "rule")
    assert rule.attrib["d"].count("L") == 1  # random images, one and ten per class


def test_bits_are_joined_at_each_ipc() -> None:
    (figure,) = figures.over_bytes(joined_lines([coded(), coded(ipc=10), result("mtt")]))
    assert [panel.name for panel in figure.panels] == ["dm", "mtt", "random@bytes"]
    (line,) = by_class(root(figure), "line")
    assert [part.count("L") for part in line.attrib["d"].split("M")[1:]] == [2, 2]
    assert "dm, 10 per class, 2 bits: 49.00 ± 1.41 % in 10.0 kB" in figure.panels[0].drawing.about
    assert "dm, 10 per class: 51.00 ± 1.41 % in 100.0 kB" in figure.panels[0].drawing.about
    (rule,) = by_class(root(figure), "rule")
    assert [part.count("L") for part in rule.attrib["d"].split("M")[1:]] == [3, 3]  # as many images, too


def test_one_image_per_class_is_a_figure_where_it_has_copies() -> None:
    (figure,) = figures.over_bytes(joined_lines([coded()]))
    assert [panel.name for panel in figure.panels] == ["dm", "random@bytes"]


def test_real_images_for_bytes_have_panels_and_shapes_of_their_own() -> None:
    (figure,) = figures.over_bytes(joined_lines([coded(), coded("mtt")]))
    real = root(figure, 2)
    assert figure.panels[2].name == "random@bytes"
    assert len(elements(real, "rect")) == 6  # beside each set and each copy
    assert by_class(real, "mark")[0].tag.endswith("rect")
    assert by_class(real, "rule") == []
    (others,) = by_class(real, "others")
    assert others.attrib["d"].count("M") == 2  # the methods
    (beside,) = by_class(root(figure), "others")
    assert beside.attrib["d"].count("M") == 1  # the other method, not its real images


def test_what_comes_on_top_of_seconds_is_said() -> None:
    (figure,) = of_time(result(experts_seconds=1234.0))
    assert "experts in 1.23e+03 s besides" in figure.panels[0].drawing.about


def test_a_cut_or_damaged_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"iteration": 1, "loss": 2.0}\n{"iteration": 2, "lo')
    assert figures.read_losses(log) == [(1.0, 2.0)]
    lines = ['{"iteration": 1, "loss": 2.0}', '{"iteration": 2}', '{"iteration": 3, "loss": []}', "\x00[1"]
    lines += [
        '{"iteration": 4, "loss": NaN}',
        '{"iteration": 5, "loss": 1e999}',
        '{"iteration": 6, "loss": 3}',
    ]
    log.write_text("\n".join(lines))
    assert figures.read_losses(log) == [(1.0, 2.0), (6.0, 3.0)]
    assert figures.read_losses(tmp_path / "none") == []
