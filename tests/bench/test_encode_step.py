"""Suites whose sets are also evaluated as copies of fewer bits a pixel."""

from __future__ import annotations

import csv
import io
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from dsdistill.bench import cell_files, runner, tables
from dsdistill.bench.cells import Cell
from dsdistill.bench.collection import collect
from dsdistill.bench.expert_set import Environment
from dsdistill.bench.lines import gains, without_copies
from dsdistill.bench.lines import lines as joined_lines
from dsdistill.bench.planning import plan
from dsdistill.bench.suite import load_suite
from dsdistill.errors import UserError
from dsdistill.storage import set_file
from tests.bench.test_bench import Commands, OneProcess
from tests.helpers.bench import coded, result, row
from tests.helpers.cli import Captured, succeed

SUITE = """
title = "Rates"
datasets = ["digits"]
methods = ["dm"]
ipcs = [1]
iterations = 3
network = "convnet2-w8"
students = 2
epochs = 2
bits = [32, 4, 8]
baselines = ["random", "random@bytes", "random@2ipc"]
"""
DM = "digits/dm-ipc1-seed0"


@pytest.fixture(scope="module")
def finished(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the finished run whose pixels are float32, as a suite with bits has them."""
    folder = tmp_path_factory.mktemp("float32")
    shutil.copytree(finished.parent, folder, dirs_exist_ok=True)
    set_file.write(folder / finished.name, set_file.read(finished), "float32")
    return folder / finished.name


def planned(folder: Path, text: str = SUITE) -> list[Cell]:
    (folder / "mine.toml").write_text(text)
    return plan(load_suite(folder / "mine.toml"))


def run(cells: Sequence[Cell], folder: Path, launch: Commands) -> list[str]:
    """Run cells; return what was called, without the folder of the cell."""
    before = len(launch.seen)
    assert runner.run("mine", cells, folder, Environment(threads=1), 1, lambda event: None, launch) == {}
    return [seen.replace("dm-ipc1-seed0/", "") for seen in launch.seen[before:]]


# Plans ------------------------------------------------------------------------------------------------------


def test_a_copy_is_evaluated_like_its_set_with_real_images_for_its_own_bytes(tmp_path: Path) -> None:
    (cell,) = planned(tmp_path)
    words = [cell.evaluate(each, tmp_path, Environment()) for each in cell.all_evaluations]
    assert [Path(each[1]).name for each in words] == ["set.h5", "set-8bits.h5", "set-4bits.h5"]
    pairs = [dict(itertools.pairwise(each)) for each in words]
    assert [each["--baselines"] for each in pairs] == [
        "random,random@bytes,random@2ipc",
        "random@bytes,random@2ipc",
        "random@bytes,random@2ipc",
    ]
    for option in ("--seed", "--networks", "--protocol", "--epochs", "--repeats"):
        assert len({each[option] for each in pairs}) == 1
    commands = cell.commands(tmp_path, Environment())
    assert [each.split()[1] for each in commands] == ["distill", "encode", "encode", *["evaluate"] * 3]
    assert commands[1].endswith("set-8bits.h5 --bits 8")


@pytest.mark.parametrize(
    ("text", "storage"),
    [
        (SUITE, "float32"),
        (SUITE.replace("[32, 4, 8]", "[32]"), None),
        (SUITE.replace("bits = [32, 4, 8]", ""), None),
        (SUITE + 'set = { storage = "float16" }', "float16"),
    ],
)
def test_copies_are_encoded_of_what_is_exact(tmp_path: Path, text: str, storage: str | None) -> None:
    (cell,) = planned(tmp_path, text)
    assert cell.options.get("storage") == storage


def test_a_suite_without_bits_has_the_settings_it_had(tmp_path: Path) -> None:
    (cell,) = planned(tmp_path, SUITE.replace("bits = [32, 4, 8]", ""))
    assert cell.bits == ()
    assert "bits" not in cell.settings()


def test_scores_are_of_sets_and_not_of_copies(tmp_path: Path) -> None:
    (cell,) = planned(tmp_path, SUITE + "scores = true\n")
    assert [each.scores for each in cell.all_evaluations] == [True, False, False]


def test_a_method_may_have_bits_of_its_own(tmp_path: Path) -> None:
    text = SUITE.replace('["dm"]', '["dm", "mmd"]') + "[method.mmd]\nbits = [32]\n"
    assert [cell.bits for cell in planned(tmp_path, text)] == [(8, 4), ()]


def test_every_evaluation_of_a_set_is_of_its_copies_too(tmp_path: Path) -> None:
    text = SUITE + "[evaluation.one]\n[evaluation.other]\nseeds = [3]\nbaselines = []\n"
    (cell,) = planned(tmp_path, text)
    assert [cell.report(each, tmp_path).name for each in cell.all_evaluations] == [
        f"evaluation-{name}{suffix}.json"
        for suffix in ("", ".8bits", ".4bits")
        for name in ("one", "other-seed3")
    ]


LABELLED = """
teacher = "teacher"
label = {options}
protocol = "fkd"
[experts.teacher]
recipe = "teacher"
network = "convnet2-w8-batch"
"""


@pytest.mark.parametrize(
    ("bits", "more", "message"),
    [
        (
            "[32, 9]",
            "",
            "suite 'mine' has bits of 9: a pixel is encoded in 1 to 8, and 32 is the set",
        ),
        ("[32, 4, 4]", "", "suite 'mine' lists 4 twice in bits; drop one"),
        ("[8, 4]", "", "leaves 32 out of bits, the set as it is distilled: write bits = [32, 8, 4]"),
        ("[32]", "[method.dm]\nbits = [0]", "method 'dm' of suite 'mine' has bits of 0"),
        ("[32, 8]", "set = { storage = { bits = 2 } }", "its storage codes its sets already: leave out bits"),
    ],
)
def test_bits_that_cannot_be_are_refused_in_a_line(
    tmp_path: Path, bits: str, more: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        planned(tmp_path, SUITE.replace("[32, 4, 8]", bits) + more)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_sets_with_views_are_not_encoded_and_those_with_static_labels_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"views of images as they are.*write bits = \[32\]"):
        planned(tmp_path, SUITE + LABELLED.format(options="{ views = 2 }"))
    static = LABELLED.replace("fkd", "sre2l").format(options="{}") + '[method.dm]\nlabels = "static"\n'
    (cell,) = planned(tmp_path, SUITE + static)
    files = [cell.evaluated_file(each, tmp_path).name for each in cell.all_evaluations]
    assert files == ["labelled.h5", "labelled-8bits.h5", "labelled-4bits.h5"]


# Runs -------------------------------------------------------------------------------------------------------

EVALUATE = "evaluate evaluation.{}bits.json"
ENCODE = "encode set-{}bits.h5"


def test_a_set_is_distilled_once_and_encoded_from_its_file(tmp_path: Path, finished: Path) -> None:
    cells, launch, folder = planned(tmp_path), Commands(finished), tmp_path / "r"
    assert run(cells, folder, launch) == [
        "distill set.h5",
        "evaluate evaluation.json",
        ENCODE.format(8),
        EVALUATE.format(8),
        ENCODE.format(4),
        EVALUATE.format(4),
    ]
    assert run(cells, folder, launch) == []
    ((cell,), problems) = collect(folder)
    assert problems == []
    assert [each.bits for each in cell.evaluations] == [32, 8, 4]
    assert [cell.is_copy(each) for each in cell.evaluations] == [False, True, True]


@pytest.mark.parametrize(
    ("bits", "again"),
    [
        ("[32, 8, 4, 2]", [ENCODE.format(2), EVALUATE.format(2)]),
        ("[32, 4]", []),
        ("[32]", []),
    ],
)
def test_other_bits_of_a_finished_suite_do_only_what_is_new(
    tmp_path: Path, finished: Path, bits: str, again: list[str]
) -> None:
    launch, folder = Commands(finished), tmp_path / "r"
    run(planned(tmp_path), folder, launch)
    cells = planned(tmp_path, SUITE.replace("[32, 4, 8]", bits))
    assert cell_files.state(cells[0], folder) == "to be evaluated again"
    assert run(cells, folder, launch) == again
    ((cell,), _) = collect(folder)
    assert [each.bits for each in cell.evaluations] == sorted(map(int, bits[1:-1].split(",")), reverse=True)


def test_other_students_are_trained_on_the_copies_that_are_there(tmp_path: Path, finished: Path) -> None:
    launch, folder = Commands(finished), tmp_path / "r"
    run(planned(tmp_path), folder, launch)
    cells = planned(tmp_path, SUITE.replace("students = 2", "students = 3"))
    assert run(cells, folder, launch) == ["evaluate evaluation.json", EVALUATE.format(8), EVALUATE.format(4)]


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        (["evaluation.8bits.json"], [EVALUATE.format(8)]),
        (["evaluation.4bits.json", "set-4bits.h5"], [ENCODE.format(4), EVALUATE.format(4)]),
        (["set-4bits.h5"], []),  # its report is there
    ],
)
def test_a_stopped_cell_goes_on(tmp_path: Path, finished: Path, lost: list[str], again: list[str]) -> None:
    launch, folder = Commands(finished), tmp_path / "r"
    run(planned(tmp_path), folder, launch)
    for name in ("result.json", *lost):
        (folder / DM / name).unlink()
    assert run(planned(tmp_path), folder, launch) == again


def test_copies_of_another_set_do_not_stay(tmp_path: Path, finished: Path) -> None:
    launch, folder = Commands(finished), tmp_path / "r"
    run(planned(tmp_path), folder, launch)
    for name in ("result.json", "set.h5"):
        (folder / DM / name).unlink()
    assert len(run(planned(tmp_path), folder, launch)) == 6


# Results ----------------------------------------------------------------------------------------------------


def test_copies_are_lines_of_their_own(tmp_path: Path) -> None:
    cells = [coded(seed=seed) for seed in (0, 1)]
    joined = joined_lines(cells)
    own = [line for line in joined if line.set == "distilled"]
    assert [(line.bits, line.of_copy, line.bytes, len(line.values)) for line in own] == [
        (32, False, 10_000, 4),
        (4, True, 2_000, 4),
        (2, True, 1_000, 4),
    ]
    real = {(line.set, line.set_bits): line.bits for line in joined if line.baseline}
    assert real == {
        ("random", 32): 8,
        ("random@bytes", 32): 8,
        ("random@bytes", 4): 4,
        ("random@bytes", 2): 2,
    }
    assert {line.set_bits for line in without_copies(joined)} == {32}


def test_tables_tell_bits_and_bytes() -> None:
    text = tables.markdown([coded()])
    head = next(line for line in text.splitlines() if line.startswith("| data set"))
    columns = [each.strip() for each in head.strip("|").split("|")]
    found = []
    for line in text.splitlines():
        if line.startswith("| cifar10"):
            cells = dict(zip(columns, (each.strip() for each in line.strip("|").split("|")), strict=True))
            found.append((cells["method"], cells["bits"], cells["kB"]))
    assert ("dm", "32", "10.0") in found
    assert ("dm", "2", "1.0") in found
    assert ("random@bytes of dm", "2", "1.0") in found
    assert "encoded copy" in text
    plain = tables.markdown([result()])
    assert "bits" not in plain
    rows = list(csv.DictReader(io.StringIO(tables.csv_text([coded()]))))
    assert [
        (each["set"], each["bits"], each["stored_bytes"]) for each in rows if each["set"] == "distilled"
    ] == [
        ("distilled", "32", "10000.0"),
        ("distilled", "4", "2000.0"),
        ("distilled", "2", "1000.0"),
    ]
    noise = [row("distilled", [50.0]), row("noise+labels", [10.0])]
    (_, last) = csv.DictReader(io.StringIO(tables.csv_text([result(rows=noise)])))
    assert last["bits"] == ""


def test_gains_are_those_of_sets_as_they_are() -> None:
    ours = coded("mtt", settings={"distil": {}, "evaluate": {"gain_over": "dm"}})
    (gain,) = gains([coded(), ours])
    assert gain.points == (0.0,)


@pytest.mark.slow
def test_a_suite_with_bits_from_end_to_end(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole_run, launch = runner.run, OneProcess()
    monkeypatch.setattr(runner, "run", lambda *told, **options: whole_run(*told, launch=launch, **options))
    planned(tmp_path, SUITE.replace("[32, 4, 8]", "[32, 2]"))
    succeed(capsys, "bench", tmp_path / "mine.toml", "-o", tmp_path / "r", "--workers", "1")
    ((cell,), _) = collect(tmp_path / "r")
    whole, copy = cell.evaluations
    assert copy.image_bytes < 0.2 * whole.image_bytes
    assert [each.bits for each in cell.evaluations] == [32, 2]
    sets = {(line.set, line.bits) for line in joined_lines([cell])}
    assert {("random", 8), ("random@bytes", 8), ("random@bytes", 2)} < sets
    page = tmp_path / "report.html"
    succeed(capsys, "report", tmp_path / "r", "-o", page)
    assert "Accuracy against bytes" in page.read_text()
