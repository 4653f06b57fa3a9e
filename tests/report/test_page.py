"""The page of results: everything is inside it, links lead somewhere, nothing of a file's becomes markup."""

from __future__ import annotations

import dataclasses
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from dsdistill.bench.lines import lines as joined_lines
from dsdistill.bench.results import CellResult
from dsdistill.data.preprocess import Standardise
from dsdistill.errors import UserError
from dsdistill.evaluation import scores
from dsdistill.report import figures, page, plots
from dsdistill.report.charts import Mark, Rule, Series, plot, short, spark, thinned
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet
from tests.helpers.bench import result, row

METHODS = ("dc", "dsa", "dm", "idc-i", "idc", "idm", "datadam", "ncfm", "mtt")


class Page(HTMLParser):
    """Ids, links and addresses of a page, whose elements have to be closed."""

    VOID = ("meta", "link", "br", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = dict(attributes)
        self.tags.append(tag)
        self.ids += [told["id"] or ""] if "id" in told else []
        if tag == "a":
            self.links.append(told["href"] or "")
        self.loaded += [told[key] or "" for key in ("src",) if key in told]
        self.loaded += [told["href"] or ""] if tag == "link" else []
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def small_set(classes: int = 3, each: int = 2, channels: int = 1, size: int = 4) -> DistilledSet:
    images = torch.rand(classes * each, channels, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(classes).repeat_interleave(each)
    names = tuple(f"class {label}" for label in range(classes))
    return DistilledSet(images, labels, names, Standardise.of((0.5,) * channels, (0.2,) * channels))


def stored(folder: Path, found: CellResult) -> CellResult:
    """Put a cell on disk, its set and its log beside it."""
    cell = folder / found.cell
    (cell / "set.run").mkdir(parents=True)
    set_file.write(cell / "set.h5", small_set())
    log = [json.dumps({"iteration": at, "loss": 10.0 / at}) for at in range(1, 300)]
    (cell / "set.run" / "metrics.jsonl").write_text("\n".join([*log, '{"iteration": 300, "lo']))
    table = found.to_dict() | {"sha256": set_file.digest(cell / "set.h5")}
    (cell / "result.json").write_text(json.dumps(table))
    return found


def check(text: str) -> Page:
    """Check what holds of every page."""
    parsed = Page(text)
    assert len(set(parsed.ids)) == len(parsed.ids)
    inside = {f"#{each}" for each in parsed.ids}
    assert set(parsed.links) <= inside, set(parsed.links) - inside
    assert all(address.startswith("data:") for address in parsed.loaded)
    assert "script" not in parsed.tags
    assert not re.search(r"(url\(|@import|src=\"http)", text)
    return parsed


# The page ---------------------------------------------------------------------------------------------------


def test_one_cell_makes_a_page(tmp_path: Path) -> None:
    stored(tmp_path, result())
    written = page.write(tmp_path, tmp_path / "report.html", pytest.fail)
    text = written.read_text()
    parsed = check(text)
    for section in ("results", "time", "bytes", "images", "losses", "cells"):
        assert section in parsed.ids
    assert "networks" not in parsed.ids  # one student: no comparison
    assert "51.00 ± 1.41" in text
    assert "26.0 ± 0.8" in text
    assert "Quoted in" in text
    assert "protocols" in text
    assert "method = &quot;dm&quot;" in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert parsed.links.count("#cell-tried-cifar10-dm-ipc1-seed0") >= 4  # table, charts, image, loss
    assert "missing or damaged" not in text


@pytest.mark.slow
def test_fifty_cells_make_a_page(tmp_path: Path) -> None:
    for method in METHODS:
        for ipc in (1, 10, 50):
            for seed in (0, 1):
                rows = [row("distilled", [50.0, 51.0], network) for network in ("convnet", "resnet18")]
                stored(tmp_path, result(method, ipc, seed, rows=rows))
    text = page.write(tmp_path, tmp_path / "report.html", pytest.fail).read_text()
    parsed = check(text)
    assert text.count("<article") == 54
    assert text.count("<img") == 27  # the first seed of each
    assert "networks" in parsed.ids
    assert len(text) < 2_000_000


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    stored(tmp_path, result())
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "result.json").write_text('{"format": "dsd')
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "cell.toml").write_text("")
    said: list[str] = []
    text = page.write(tmp_path, tmp_path / "report.html", said.append).read_text()
    assert len(said) == 2
    assert "half/result.json is not whole JSON" in text
    assert "not finished: begun" in text
    assert str(tmp_path) not in text


def test_a_cell_says_when_its_file_is_another(tmp_path: Path) -> None:
    found = stored(tmp_path, result())
    file = tmp_path / found.cell / "set.h5"
    set_file.write(file, small_set(each=1))
    text = page.write(tmp_path, tmp_path / "report.html", pytest.fail).read_text()
    assert "another set lies there now" in text
    assert "<img" not in text
    assert 'id="losses"' not in text  # nor is the log known to be that of the evaluated set
    file.write_bytes(b"damaged")
    text = page.write(tmp_path, tmp_path / "report.html", pytest.fail).read_text()
    assert "missing or damaged" in text
    check(text)


def test_names_are_text_and_not_markup() -> None:
    bad = '"><script>alert(1)</script>&'
    rows = [row("distilled", [50.0], bad), row(bad, [40.0], bad), row("distilled", [30.0], "mlp")]
    nasty = result(
        bad, dataset=bad, rows=rows, suite=bad, machine=bad, network=bad, config=bad, commands=[bad]
    )
    text = page.html([nasty], [bad])
    assert "<script>" not in text
    check(text)
    for figure in figures.over_time([nasty], joined_lines([nasty])):
        ElementTree.fromstring(figure.svg)


def test_pages_are_refused_where_they_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished cell"):
        page.write(tmp_path, tmp_path / "report.html", pytest.fail)
    with pytest.raises(UserError, match="there is no folder"):
        page.write(tmp_path / "none", tmp_path / "report.html", pytest.fail)
    with pytest.raises(UserError, match="does not exist"):
        page.write(tmp_path, tmp_path / "none" / "report.html", pytest.fail)


def test_the_best_is_that_of_one_protocol() -> None:
    cells = [
        result(method, rows=[row("distilled", [mean])]) for method, mean in (("dm", 50.0), ("mtt", 60.0))
    ]
    other = dataclasses.replace(row("distilled", [70.0]), protocol="dsa")
    text = page.html([*cells, result("dsa", rows=[other])])
    assert re.findall(r'<td class="number best">([\d.]+)</td>', text) == ["60.00"]


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
    check(text)
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
    (over_bytes,) = figures.over_bytes(results, joined_lines(results))
    assert not re.search("augmentation|hard labels|full", over_bytes.svg)
    (over_time,) = figures.over_time(results, joined_lines(results))
    assert {"random of dm", "full of mtt"} <= set(texts(over_time.svg))


def test_what_comes_on_top_of_seconds_and_bytes_is_said() -> None:
    trained = result(experts_seconds=1234.0)
    assert "experts in 1.23e+03 s besides" in figures.over_time([trained], joined_lines([trained]))[0].svg
    assert "whitening" not in page.html([trained]).partition('id="cells"')[2]
    trained.report["cost"]["preprocess_bytes"] = 37.7e6
    assert "whitening takes 37,700.0 kB more" in page.html([trained])


# Charts -----------------------------------------------------------------------------------------------------


def texts(svg: str) -> list[str]:
    return [
        element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")
    ]


def test_a_plot_places_points_on_its_axes() -> None:
    marks = tuple(Mark(x, y) for x, y in ((1, 10), (10, 20), (100, 40)))
    svg = plot([Series("dm", marks, 0)], "seconds", "accuracy %", [Rule("random", 15)])
    circles = [e for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("circle")][:3]
    xs, ys = ([float(each.attrib[key]) for each in circles] for key in ("cx", "cy"))
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)  # logarithmic
    assert ys[1] - ys[2] == pytest.approx(2 * (ys[0] - ys[1]), abs=0.2)  # linear, upwards
    assert {"1", "10", "100", "seconds", "accuracy %", "random", "dm"} <= set(texts(svg))


@pytest.mark.parametrize(
    "xs", [[1e-3], [5.0, 5.0], [0.9, 1.1], [3, 3000], [1, 1e9], [7.1, 7.2, 7.3], [0.0, 4.0]]
)
def test_axes_have_a_few_round_ticks(xs: list[float]) -> None:
    svg = plot([Series("dm", tuple(Mark(x, 50) for x in xs), 0)], "x", "y")
    numbers = [text for text in texts(svg) if re.fullmatch(r"[\d.e+-]+[kMG]?", text)]
    assert 3 <= len(numbers) <= 16
    assert "nan" not in svg


def test_nothing_to_draw_is_no_chart() -> None:
    assert plot([], "x", "y") == ""
    assert plot([Series("dm", (Mark(0.0, 5.0), Mark(float("nan"), 5.0)), 0)], "x", "y") == ""
    assert spark([(1, 2.0)], 0, "") == ""


def test_many_series_keep_their_names_and_differ() -> None:
    series = [Series(f"method-{number}", (Mark(1 + number, 50),), number) for number in range(20)]
    svg = plot(series, "x", "y")
    assert {f"method-{number}" for number in range(20)} <= set(texts(svg))


def test_losses_are_thinned_and_a_cut_log_is_read(tmp_path: Path) -> None:
    values = [(float(at), float(at % 2)) for at in range(1000)]
    thin = thinned(values)
    assert len(thin) <= 120
    assert all(0.4 < value < 0.6 for _, value in thin[:-1])
    assert thin[-1][0] == 999
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


def test_axis_values_are_short() -> None:
    assert [short(value) for value in (0.5, 20, 3000, 1.5e6, 2e9)] == ["0.5", "20", "3k", "1.5M", "2G"]


def test_plots_are_whole_files(tmp_path: Path) -> None:
    written = plots.write(tmp_path / "plots", [result(), result(ipc=10)])
    assert [path.name for path in written] == [
        "seconds-tried-cifar10-ipc1.svg",
        "seconds-tried-cifar10-ipc10.svg",
        "bytes-tried-cifar10.svg",
    ]
    for path in written:
        assert "<style>" in path.read_text()
        ElementTree.parse(path)


def test_texts_are_escaped_bounded_and_without_folders(tmp_path: Path) -> None:
    bad = "\x1b[31m\u202ered\n" + "x" * 100_000
    nasty = result(bad, dataset=bad, suite=bad, rows=[row("distilled", [50.0], bad)], config="a\x9b\nb")
    text = page.html([nasty], ["cannot read /srv/anna/x.h5"])
    check(text)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert len(text) < 200_000
    assert "a\\x9b\nb</code>" in text
    for figure in figures.over_time([nasty], joined_lines([nasty])):
        ElementTree.fromstring(figure.svg)
    stored(tmp_path, result())
    (tmp_path / "cell.toml").touch()
    (tmp_path / "failed.txt").write_text("no such folder: /srv/anna/pets")
    told = page.write(tmp_path, tmp_path / "report.html", lambda _: None).read_text()
    assert "no such folder: pets" in told
    assert "anna" not in told
