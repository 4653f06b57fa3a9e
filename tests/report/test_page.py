"""The page of results: everything is inside it, links lead somewhere, nothing of a file's becomes markup."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from dsdistill.errors import UserError
from dsdistill.report import page
from dsdistill.runtime import provenance
from dsdistill.storage import set_file
from tests.helpers.bench import coded, result, row
from tests.helpers.reports import Page, by_class, elements, grid, small_set, stored


def charts(text: str, kind: str) -> list[ElementTree.Element]:
    """Return the charts of a page that are of a kind."""
    found = re.finditer(rf'<(div|svg) class="(?:chart )?{kind}" .*?</\1>', text, re.DOTALL)
    return [ElementTree.fromstring(each[0]) for each in found]


def check(text: str) -> Page:
    """Check what holds of every page."""
    parsed = Page(text)
    assert len(set(parsed.ids)) == len(parsed.ids)
    inside = {f"#{each}" for each in parsed.ids}
    assert set(parsed.links) <= inside, set(parsed.links) - inside
    assert all(address.startswith("data:") for address in parsed.loaded)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(parsed.tags)
    assert not re.search(
        r"(url\(|@import|javascript:|\son\w+=\"|=\"https?:(?!//www\.w3\.org/2000/svg))", text
    )
    return parsed


# The page ---------------------------------------------------------------------------------------------------


def test_one_cell_makes_a_page(tmp_path: Path) -> None:
    stored(tmp_path, result())
    written = page.write(tmp_path, tmp_path / "report.html", pytest.fail)
    text = written.read_text()
    parsed = check(text)
    for section in ("results", "time", "images", "losses", "cells"):
        assert section in parsed.ids
    assert "networks" not in parsed.ids  # one student: no comparison
    assert "bytes" not in parsed.ids  # nor are there sets of several sizes
    assert "51.00 ± 1.41" in text
    assert "26.0 ± 0.8" in text
    assert "Quoted in" in text
    assert "protocols" in text
    assert "method = &quot;dm&quot;" in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert parsed.links.count("#cell-tried-cifar10-dm-ipc1-seed0") >= 4  # table, charts, image, loss
    assert "missing or damaged" not in text


def test_copies_are_in_the_charts_of_bytes_and_a_table_beside_them_alone() -> None:
    text = page.html([coded(), coded(ipc=10)])
    assert {"results", "bytes"} <= set(check(text).ids)
    without = page.html([result(), result(ipc=10)])
    assert "encoded in fewer bits" in text
    assert "encoded in fewer bits" not in without
    (rates,) = [table for table in Page(text).tables if table[0][2:4] == ["IPC", "bits"]]
    assert ["dm", "49.00 ± 1.41", "10", "2", "10.0"] in [row[:5] for row in rates]
    assert ["random@bytes of dm", "38.50 ± 0.71", "1", "2", "1.0"] in [row[:5] for row in rates]
    (accuracies,) = [table for table in Page(text).tables if "published %" in table[0]]
    assert [row[0] for row in accuracies].count("dm") == 2  # sets as they are, at each IPC
    assert "dm on convnet 49.00 ± 1.41 % (48.00, 50.00), 2 bits" in text


@pytest.fixture(scope="module")
def forty() -> str:
    """Return the page of 40 cells of two data sets, with two students, whose files are elsewhere."""
    return page.html(grid())


def test_forty_cells_make_a_page_of_bounded_size(forty: str) -> None:
    parsed = check(forty)
    assert forty.count("<article") == 40
    assert {"results", "time", "bytes", "networks", "cells"} <= set(parsed.ids)
    assert len(forty) < 500_000


@pytest.mark.slow
def test_forty_cells_with_their_files_make_a_page_of_bounded_size(tmp_path: Path) -> None:
    for each in grid():
        stored(tmp_path, each, small_set(10, each.ipc, 3, 32))
    text = page.write(tmp_path, tmp_path / "report.html", pytest.fail).read_text()
    assert {"images", "losses"} <= set(check(text).ids)
    assert text.count("<img") == 40
    assert len(text) < 8_000_000  # pictures of noise, which do not compress


def test_charts_and_tables_have_the_same_rows_in_the_same_order(forty: str) -> None:
    groups: list[list[list[str]]] = []
    for table in Page(forty).tables:
        for cells in table[1:] if table[0][:2] == ["method", "accuracy %"] else []:
            if len(cells) == 1:  # the title of a family
                groups.append([])
            else:
                groups[-1].append(cells[:2])
    drawn = []
    for chart in charts(forty, "dots"):
        pairs = zip(by_class(chart, "name"), by_class(chart, "value"), strict=True)
        drawn.append([[name.text or "", value.text or ""] for name, value in pairs])
    assert len(drawn) == 8  # two data sets, two IPCs, two students
    assert sorted(drawn) == sorted(groups)
    for chart in drawn:
        means = [float(text.partition(" ")[0]) for _, text in chart]
        assert means == sorted(means, reverse=True)


def test_what_all_rows_share_is_said_once() -> None:
    text = page.html(grid(("dm", "mtt"), (1,), ("cifar10",), ("convnet",)))
    assert (
        "The same in all rows: iterations 100, labels HL, student convnet, protocol dm, epochs 1000" in text
    )
    assert "students 3, seed 0." in text
    (table,) = Page(text).tables
    assert table[0] == ["method", "accuracy %", "published %", "kB", "distilled in"]
    other = dataclasses.replace(row("distilled", [70.0, 71.0, 72.0]), protocol="dsa")
    text = page.html([*grid(("dm", "mtt"), (1,), ("cifar10",), ("convnet",)), result("dsa", rows=[other])])
    assert "protocol" in Page(text).tables[0][0]
    shared = re.search("The same in all rows: [^<]*", text)
    assert shared
    assert "protocol" not in shared[0]


def test_the_top_says_what_was_found_when_and_by_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "commit", lambda: "1f2e3d4c5b6a with changes")
    cells = grid(("dm", "mtt"), (1,), ("cifar10",), ("convnet",))
    cells[0].report["packages"]["dsdistill"] = "0.0.9"
    top = page.html(cells).partition("<main>")[0]
    assert '<p class="conclusion">No distilled set beats as many random real images; ' in top
    assert "<strong>cifar10, 1 per class:</strong> mtt is the best of 2 with 42.00\xa0±\xa00.87\xa0%" in top
    assert "evaluated 2026-01-02, dsdistill 0.0.9" in top
    assert re.search(r"written \d{4}-\d\d-\d\d \d\d:\d\d UTC, dsdistill [\d.]+", top)
    assert "commit 1f2e3d4c5b6a with changes" in top
    monkeypatch.setattr(provenance, "commit", lambda: "")
    assert "commit" not in page.html(cells).partition("<main>")[0]


def test_every_accuracy_leads_to_its_cell(forty: str) -> None:
    tables = forty.partition('id="scores"')[0]
    accuracies = re.findall(r'<td class="(?:number best|number|heat)"[^>]*>(.*?)</td>', tables)
    spreads = [each for each in accuracies if "±" in each and "#source" not in each]
    assert len(spreads) == 8 * 14
    assert all(re.match(r'<a href="#cell-[^"]*">', each) for each in spreads)
    for chart in charts(forty, "dots"):
        links = elements(chart, "a")
        assert len(links) == 3 * 14  # a row's name, dot and figure
        assert all(each.attrib["href"].startswith("#cell-") for each in links)


def test_charts_have_names_and_descriptions(forty: str) -> None:
    for chart in [*charts(forty, "dots"), *charts(forty, "curves")]:
        assert elements(chart, "title")[0].text
        assert elements(chart, "desc")[0].text


def test_what_cells_share_is_said_once(forty: str) -> None:
    top, _, cells = forty.partition('id="cells"')[2].partition("<article")
    for fact in ("machine", "packages", "protocol"):
        assert f"<dt>{fact}</dt>" in top
        assert f"<dt>{fact}</dt>" not in cells
    assert page.html([result()]).partition('id="cells"')[2].count("<dt>machine</dt>") == 1


def test_two_suites_are_told_apart() -> None:
    text = page.html([result(suite="one"), result(suite="two")])
    check(text)
    assert "<h3>cifar10 (one)</h3>" in text
    assert "<h3>cifar10 (two)</h3>" in text


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
    text = page.html([nasty, result(bad, 10, dataset=bad, rows=rows, suite=bad)], [bad])
    assert "<script>" not in text
    check(text)
    assert charts(text, "dots")
    assert charts(text, "curves")


def test_pages_are_refused_where_they_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished cell"):
        page.write(tmp_path, tmp_path / "report.html", pytest.fail)
    with pytest.raises(UserError, match="there is no folder"):
        page.write(tmp_path / "none", tmp_path / "report.html", pytest.fail)
    with pytest.raises(UserError, match="does not exist"):
        page.write(tmp_path, tmp_path / "none" / "report.html", pytest.fail)


def test_texts_are_escaped_bounded_and_without_folders(tmp_path: Path) -> None:
    bad = "\x1b[31m\u202ered\n" + "x" * 100_000
    nasty = result(bad, dataset=bad, suite=bad, rows=[row("distilled", [50.0], bad)], config="a\x9b\nb")
    text = page.html([nasty], ["cannot read /srv/anna/x.h5"])
    check(text)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert len(text) < 200_000
    assert "a\\x9b\nb</code>" in text
    assert charts(text, "dots")
    assert charts(text, "curves")
    stored(tmp_path, result())
    (tmp_path / "cell.toml").touch()
    (tmp_path / "failed.txt").write_text("no such folder: /srv/anna/pets")
    told = page.write(tmp_path, tmp_path / "report.html", lambda _: None).read_text()
    assert "no such folder: pets" in told
    assert "anna" not in told
