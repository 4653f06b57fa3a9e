"""What the commands print: texts of others as they are read, and never as a terminal obeys them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from dsdistill.bench.lines import lines
from dsdistill.cli import console
from dsdistill.loggers.progress import ProgressBar
from dsdistill.storage import set_file, set_results
from tests.helpers.bench import result, row
from tests.helpers.cli import Captured, refused, succeed
from tests.helpers.expert_files import metadata, states, training
from tests.helpers.storage import make

NASTY = "[red]cat[/red] :cat: \x1b]0;owned\x07\x9b31m\n\u202edsdistill: done\u2028\x7f"
SHOWN = r"[red]cat[/red] :cat: \x1b]0;owned\x07\x9b31m\n\u202edsdistill: done\u2028\x7f"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
FACTS = {"method": NASTY, "dataset": NASTY, "machine": NASTY, "network": "mlp", "config": f"a = 1\n# {NASTY}"}
ROW = dict.fromkeys(("set", "network", "protocol", "date"), NASTY)
RESULT = {
    **ROW,
    "epochs": 1,
    "mean": 1.0,
    "std": 0.0,
    "values": [1.0],
    "images": 3,
    "decoded": 3,
    "seconds": 1.0,
}


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    """Return a set whose every name tries to command a terminal."""
    path = tmp_path / "set.h5"
    set_file.write(path, make(classes=(NASTY, "b", "c"), attributes=FACTS))
    set_results.append_result(path, RESULT)
    return path


def safe(*texts: str) -> str:
    text = "".join(texts)
    assert not OBEYED.search(text)
    return text


def test_info_shows_names_and_obeys_none(capsys: Captured, nasty: Path) -> None:
    text = safe(*succeed(capsys, "info", nasty))
    assert text.count(SHOWN) == 7  # class, method, dataset, machine; and set, network and protocol of the row
    config = safe(*succeed(capsys, "info", nasty, "--config"))
    assert config.startswith("a = 1\n# [red]cat[/red] :cat: \\x1b]0;")


def test_show_and_export_print_no_name_as_it_is(capsys: Captured, nasty: Path) -> None:
    safe(*succeed(capsys, "show", nasty))
    safe(*succeed(capsys, "export", nasty, nasty.with_name("out")))
    safe(*succeed(capsys, "export", nasty, "--to", "ddranking", "-o", nasty.with_name("dd")))


def test_experts_are_shown_and_not_obeyed(capsys: Captured, tmp_path: Path) -> None:
    from dsdistill.storage import expert_writer

    common = metadata(dataset=NASTY, classes=(NASTY, "b", "c"))
    pack = common.layout.pack
    record = dataclasses.replace(training(0), machine=NASTY, created=NASTY)
    expert_writer.write(tmp_path / "pool.h5", common, [(record, map(pack, states(0)))], 1)
    assert safe(*succeed(capsys, "info", tmp_path / "pool.h5")).count(SHOWN) == 4


def test_errors_and_notices_are_one_line_of_text(capsys: Captured, tmp_path: Path) -> None:
    line = safe(refused(capsys, "info", tmp_path / NASTY.replace("/", "")))
    assert r"\x1b]0;owned\x07\x9b31m" in line
    console.notify(NASTY * 1000)
    console.say(NASTY)
    console.print_pairs([(NASTY, NASTY)])
    text = safe(*capsys.readouterr())
    assert text.count("\n") == 3
    assert len(text) < 3000


def test_tables_and_progress_show_names_as_they_are(capsys: Captured) -> None:
    cells = [result(NASTY, dataset=NASTY, rows=[row("distilled", [1.0], NASTY)])]
    console.print_lines(lines(cells))
    show = ProgressBar(console=console.err)
    show.on_progress(NASTY, 1, 1)
    show.on_notice(NASTY)
    show.on_close()
    text = safe(*capsys.readouterr())
    assert text.count(SHOWN) >= 2
    assert ":cat:" in text
    assert "🐱" not in text
