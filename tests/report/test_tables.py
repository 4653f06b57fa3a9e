"""Tables of the page: the best in bold, students as a heat map, scores by themselves."""

from __future__ import annotations

import dataclasses
import re

from dsdistill.bench.lines import lines as joined_lines
from dsdistill.evaluation import scores
from dsdistill.report import figures, page
from tests.helpers.bench import result, row
from tests.helpers.reports import Page


def test_the_best_is_that_of_one_protocol() -> None:
    cells = [
        result(method, rows=[row("distilled", [mean])]) for method, mean in (("dm", 50.0), ("mtt", 60.0))
    ]
    other = dataclasses.replace(row("distilled", [70.0]), protocol="dsa")
    text = page.html([*cells, result("dsa", rows=[other])])
    assert re.findall(r'<td class="number best"><a [^>]*>([\d.]+)</a></td>', text) == ["60.00"]


def test_there_is_no_heat_map_where_no_method_has_two_students() -> None:
    cells = [result(), result("datadam", rows=[row("distilled", [60.0], "convnet-batch")])]
    assert 'id="networks"' not in page.html(cells)


def test_seeds_are_links_where_a_line_has_several() -> None:
    text = page.html([result(seed=0), result(seed=1), result("mtt")])
    seeds = re.findall(r'<a href="#([^"]*)">(\d)</a>', text)
    assert seeds[:2] == [(figures.anchor(result(seed=seed)), str(seed)) for seed in (0, 1)]


def test_cross_architecture_is_a_heat_map() -> None:
    rows = [
        row("distilled", [60.0], "convnet"),
        row("distilled", [40.0], "mlp"),
        row("random", [20.0], "mlp"),
    ]
    text = page.html([result(rows=rows)])
    shades = re.findall(r'--h:([\d.]+)" title="([\d.]+)"', text)
    assert shades == [("1.00", "60.00"), ("0.50", "40.00"), ("0.00", "20.00")]
    assert '<td class="number">50.0</td><td class="number">40.0</td>' in text  # mean and worst of both
    assert text.count('<td class="number">20.0</td>') == 0  # random was evaluated with one of them alone
    assert re.search(rf'<td class="heat"[^>]*><a href="#{figures.anchor(result())}">60.0</a>', text)


def test_rows_for_scores_are_in_a_table_of_their_own_and_in_no_chart() -> None:
    names = ["distilled", "distilled-hard", "random", "full", "distilled-plain", "random-plain"]
    rows = [row(name, [50.0 - number]) for number, name in enumerate(names)]
    one, other = result(rows=rows), result("mtt", rows=rows)
    assert 'id="scores"' not in page.html([result()])  # nobody asked for any
    one.report["scores"] = scores.of_rows(rows, soft_labels=True)
    results = [one, other]
    namesake = result(rows=[row(name, [90.0]) for name in names], suite="another")
    text = page.html([*results, namesake])
    Page(text)
    assert '<th scope="row">random of mtt</th>' in text
    for gone in ("dm, hard labels", "dm, no augmentation", "random, no augmentation"):
        assert f'<th scope="row">{gone}' not in text
    table = text[text.index('id="scores"') :]
    found = one.report["scores"]["networks"]["convnet"]
    values = [
        "50.00",
        "49.00",
        "46.00",
        "+2.0",
        "-2.0",
        "1000",
        f"{found['lrs']:.3f}",
        "+1.0",
        f"{found['ars']:.3f}",
    ]
    assert "".join(f'<td class="number">{value}</td>' for value in values) in table
    drawn = [*figures.accuracies(joined_lines(results)), *figures.over_time(results, joined_lines(results))]
    assert not any("augmentation" in panel.drawing.html for figure in drawn for panel in figure.panels)
