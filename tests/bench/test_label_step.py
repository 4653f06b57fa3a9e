"""Suites whose sets are labelled between distillation and evaluation, or recovered from teachers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from dsdistill.bench import cell_files, runner
from dsdistill.bench.cells import Cell
from dsdistill.bench.collection import collect
from dsdistill.bench.conditions import Conditions
from dsdistill.bench.expert_set import Environment
from dsdistill.bench.planning import plan
from dsdistill.bench.suite import load_suite
from dsdistill.errors import UserError
from tests.bench.test_bench import Commands, OneProcess
from tests.helpers.cli import Captured, succeed

SUITE = """
title = "Labels"
datasets = ["digits"]
methods = ["sre2l", "static", "views", "hard"]
ipcs = [1]
iterations = 3
network = "convnet2-w8-batch"
students = 2
epochs = 2
teacher = "teacher"
baselines = ["random", "random+labels", "distilled-hard"]

[method.sre2l]
experts = "teacher"

[method.static]
recipe = "dm"
label = {}

[method.views]
recipe = "dm"
protocol = "fkd"
label = { views = 3, mixing = "mixup", crop_scale = [0.5, 1.0], flip = false, seed = 4 }

[method.hard]
recipe = "mmd"

[experts.teacher]
recipe = "teacher"
network = "convnet2-w8-batch"
epochs = 1
"""
VIEWS = "digits/views-ipc1-seed0"


def planned(folder: Path, text: str = SUITE) -> list[Cell]:
    (folder / "mine.toml").write_text(text)
    return plan(load_suite(folder / "mine.toml"))


def named(cells: Sequence[Cell], method: str) -> Cell:
    return next(cell for cell in cells if cell.method == method)


def evaluation(cell: Cell, folder: Path) -> list[str]:
    return cell.evaluate(cell.evaluations[0], folder, Environment())


# Plans ------------------------------------------------------------------------------------------------------


def test_each_set_is_evaluated_with_the_labels_of_its_protocol(tmp_path: Path) -> None:
    cells = planned(tmp_path)
    teacher = f"{tmp_path}/digits/experts-teacher-convnet2-w8-batch.h5#0"
    files, teachers, baselines = {}, {}, {}
    for cell in cells:
        words = evaluation(cell, tmp_path)
        pairs = dict(itertools.pairwise(words))
        files[cell.method] = Path(words[1]).name
        teachers[cell.method], baselines[cell.method] = pairs.get("--teacher"), pairs["--baselines"]
    assert files == {"sre2l": "set.h5", "static": "labelled.h5", "views": "labelled.h5", "hard": "set.h5"}
    assert teachers == {"sre2l": teacher, "static": teacher, "views": teacher, "hard": None}
    assert baselines == {
        "sre2l": "random,random+labels,distilled-hard",
        "static": "random,random+labels,distilled-hard",
        "views": "random,random+labels,distilled-hard",
        "hard": "",  # random is evaluated with static, and controls are of soft labels
    }


def test_labels_are_made_as_the_suite_says(tmp_path: Path) -> None:
    cells = planned(tmp_path)
    words = named(cells, "views").labelling(tmp_path, Environment(device="cpu"))
    folder = tmp_path / VIEWS
    assert words[:4] == ["label", str(folder / "set.h5"), "-o", str(folder / "labelled.h5")]
    assert {"--resume", "--no-flip"} <= set(words)
    pairs = dict(itertools.pairwise(words))
    assert (pairs["--views"], pairs["--mixing"], pairs["--crop-scale"]) == ("3", "mixup", "0.5,1.0")
    assert (pairs["--seed"], pairs["--device"]) == ("4", "cpu")
    static = named(cells, "static").labelling(tmp_path, Environment())
    assert "--views" not in static
    assert static[-2:] == ["--seed", "0"]  # the cell's
    assert [each.label for each in (named(cells, "sre2l"), named(cells, "hard"))] == [None, None]


def test_a_committee_has_several_tables_of_experts(tmp_path: Path) -> None:
    text = SUITE.replace('experts = "teacher"', 'experts = "teacher,small"')
    text = text.replace('\nteacher = "teacher"', '\nteacher = "teacher@1, small#all"')
    text += '[experts.small]\nrecipe = "teacher"\nnetwork = "convnet2-w6-batch"\nepochs = 1\n'
    cell = named(planned(tmp_path, text), "sre2l")
    files = [
        f"{tmp_path}/digits/experts-{name}.h5"
        for name in ("teacher-convnet2-w8-batch", "small-convnet2-w6-batch")
    ]
    words = cell.distil(tmp_path, Environment())
    assert f'engine.supply.path="{files[0]},{files[1]}"' in words
    assert dict(itertools.pairwise(words))["--network"] == "convnet2-w8-batch,convnet2-w6-batch"
    pairs = dict(itertools.pairwise(evaluation(cell, tmp_path)))
    assert pairs["--teacher"] == f"{files[0]}#0@1,{files[1]}#all"
    assert pairs["--networks"] == "convnet2-w8-batch"
    assert [each.options["network"] for each in cell.needs] == ["convnet2-w8-batch", "convnet2-w6-batch"]
    assert cell.settings()["experts"].keys() == {Path(each).stem for each in files}


ALONE = """
title = "One method"
datasets = ["digits"]
methods = ["sre2l"]
ipcs = [1]
{suite}
teacher = "teacher"

[method.sre2l]
experts = "teacher"
{method}

[evaluation.one]
{evaluation}

[experts.teacher]
recipe = "teacher"
network = "convnet2-w8-batch"
"""


@pytest.mark.parametrize(
    ("suite", "method", "evaluation", "expected"),
    [
        ("", "", "", "sre2l"),
        ("rded", "", "", "rded"),
        ("own", "", "", "sre2l"),
        ("rded", "cim", "", "cim"),
        ("rded", "own", "", "sre2l"),
        ("rded", "cim", "kd-strong", "kd-strong"),
        ("rded", "cim", "own", "cim"),
        ("rded", "", "own", "sre2l"),
    ],
)
def test_a_protocol_is_the_evaluations_the_methods_the_suites_or_the_recipes(
    tmp_path: Path, suite: str, method: str, evaluation: str, expected: str
) -> None:
    named = {"suite": suite, "method": method, "evaluation": evaluation}
    lines = {key: f'protocol = "{name}"' if name else "" for key, name in named.items()}
    (cell,) = planned(tmp_path, ALONE.format(**lines))
    assert cell.evaluations[0].protocol == expected


def test_labels_of_the_suite_are_made_where_somebody_learns_from_them(tmp_path: Path) -> None:
    text = SUITE.replace("epochs = 2\nteacher", "epochs = 2\nlabel = {}\nteacher")
    text = text.replace('[method.hard]\nrecipe = "mmd"', '[method.hard]\nrecipe = "mmd"\nlabel = false')
    cells = planned(tmp_path, text)
    assert [cell.method for cell in cells if cell.label] == ["static", "views"]
    chosen = planned(tmp_path, text.replace("label = false", 'labels = "static"'))
    assert [cell.method for cell in chosen if cell.label] == ["static", "views", "hard"]
    pairs = dict(itertools.pairwise(evaluation(named(chosen, "hard"), tmp_path)))
    assert pairs["--labels"] == "static"


def test_labels_of_the_suite_are_for_methods_with_a_teacher(tmp_path: Path) -> None:
    text = SUITE.replace('\nteacher = "teacher"', "\nlabel = {}")
    text = text.replace('experts = "teacher"', 'experts = "teacher"\nteacher = "teacher"')
    for recipe in ('"dm"\nlabel = {}', '"dm"\nprotocol = "fkd"'):
        text = text.replace(f"recipe = {recipe}", f'recipe = {recipe}\nteacher = "teacher"')
    cells = planned(tmp_path, text)
    assert [cell.method for cell in cells if cell.label] == ["static", "views"]
    assert named(cells, "hard").teachers == ()


def test_evaluations_of_a_set_may_have_regimes_of_their_own(tmp_path: Path) -> None:
    text = SUITE + '[evaluation.own]\n[evaluation.hard]\nprotocol = "dm"\nlabels = "hard"\n'
    views = named(planned(tmp_path, text), "views")
    own, hard = (views.evaluate(each, tmp_path, Environment()) for each in views.evaluations)
    assert [Path(words[1]).name for words in (own, hard)] == ["labelled.h5", "set.h5"]
    assert ("--teacher" in own, "--teacher" in hard) == (True, False)
    assert dict(itertools.pairwise(hard))["--labels"] == "hard"


def test_views_of_a_set_with_compensators_are_of_more_images(tmp_path: Path) -> None:
    text = SUITE.replace('"views", "hard"]', '"infer"]').replace("ipcs = [1]", "ipcs = [3]")
    text = text.replace("method.views", "method.infer").replace('recipe = "dm"\nprotocol', "protocol")
    text = text[: text.index("[method.hard]")] + text[text.index("[experts.teacher]") :]
    text = text.replace('protocol = "fkd"', 'experts = "teacher,other"\nprotocol = "fkd"')
    text += '[experts.other]\nrecipe = "teacher"\nnetwork = "convnet2-w6-batch"\nepochs = 1\n'
    cell = named(planned(tmp_path, text), "infer")
    assert "random+labels" not in cell.evaluations[0].baselines  # as many random images have fewer views
    assert cell.label
    assert cell.label.images == 9  # two networks of which each doubles what is left, at most


def test_batches_of_views_are_conditions_of_real_images_too(tmp_path: Path) -> None:
    text = SUITE.replace('"hard"]', '"hard", "other"]')
    text += '[method.other]\nrecipe = "dm"\nprotocol = "fkd"\nlabel = { views = 3, batch_size = 5 }\n'
    cells = planned(tmp_path, text)
    views, other = named(cells, "views"), named(cells, "other")
    first, second = (Conditions.of_plan(cell, cell.evaluations[0]) for cell in (views, other))
    assert first != second
    assert other.evaluations[0].baselines[0] == "random"


def test_views_of_decoded_images_have_no_controls(tmp_path: Path) -> None:
    text = SUITE.replace('protocol = "fkd"', 'protocol = "fkd"\nset = { multi_formation = { factor = 2 } }')
    cell = named(planned(tmp_path, text), "views")
    assert cell.evaluations[0].baselines == ("random", "distilled-hard")
    assert cell.about_labels().endswith(
        "3 views of each image by teacher, 4.44 KB at most"
    )  # four times as many
    with pytest.raises(UserError, match=r"'random\+labels' is a control .* views of decoded images"):
        planned(tmp_path, text.replace('"fkd"\nset', '"fkd"\nbaselines = ["random+labels"]\nset'))


def test_a_method_of_several_networks_takes_a_table_for_each(tmp_path: Path) -> None:
    text = SUITE.replace('network = "convnet2-w8-batch"\nepochs = 1', "epochs = 1")
    text = text.replace("[method.sre2l]\n", '[method.sre2l]\nset = { network = "mlp,convnet2-w8-batch" }\n')
    with pytest.raises(
        UserError, match="experts of one network are in a table, not of mlp,convnet2-w8-batch"
    ):
        planned(tmp_path, text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('experts = "teacher"', 'experts = "teachers"'), "unknown table of experts for 'sre2l'"),
        (('\nteacher = "teacher"', '\nteacher = "nobody"'), "unknown table of experts for the teacher"),
        (('\nteacher = "teacher"', '\nteacher = "teacher@x"'), "'x' is not an epoch"),
        (('\nteacher = "teacher"', ""), "baseline 'random+labels' needs a teacher: write teacher = NAME"),
        (("label = {}", "label = { veiws = 3 }"), "unknown option 'veiws'; did you mean 'views'"),
        (("label = {}", 'label = { mixing = "mixup" }'), "mixing is an option of views"),
        (("label = {}", 'label = { teachers = "x" }'), "label has no option 'teachers'"),
        (("label = {}", 'label = { stop = "never" }'), "label.stop is 'auto'"),
        (("label = {}", 'protocol = "fkd"'), "protocol 'fkd' trains on stored views, which nothing makes"),
        (("label = {}", 'protocol = "infer"'), "protocol 'infer' trains on stored logits of each image"),
        (("label = {}", 'labels = "views"'), 'labels = "views" trains on stored views, which nothing makes'),
        (("label = {}", 'protocol = "rded"\nlabel = {}'), "nobody learns from the labels of label: protocol"),
        (("label = {}", "label = { views = 3 }"), "nobody learns from the labels of label: protocol dm"),
        (('"fkd"', '"nrr-dd"'), 'takes two distances: write label = { encoding = "distances" }'),
        (("seed = 4", 'encoding = "distances"'), "takes logits, and label makes two distances"),
        (("students = 2", "students = 2\ncurve = 2"), "snapshots have no stored labels"),
        (('recipe = "mmd"', 'recipe = "mmd"\nbaselines = ["random+labels"]'), "students have hard labels"),
        (('"mmd"', '"mmd"\nexperts = "teacher"'), "it takes no networks trained beforehand"),
        (('network = "convnet2-w8-batch"\nepochs = 1', 'network = "convent"'), "unknown network 'convent'"),
        (('label = {}', 'labels = "soft"'), "key 'method.static.labels' is 'soft'"),
    ],
)  # fmt: skip
def test_labels_that_nobody_can_make_are_refused_in_a_line(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    assert change[0] in SUITE
    with pytest.raises(UserError) as error:
        planned(tmp_path, SUITE.replace(*change))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_need_a_teacher(tmp_path: Path) -> None:
    text = SUITE.replace('\nteacher = "teacher"', "").replace('"random+labels", "distilled-hard"', "")
    with pytest.raises(UserError, match="method 'sre2l': protocol 'sre2l' has a teacher label every batch"):
        planned(tmp_path, text)
    with pytest.raises(UserError, match="method 'static': label needs a teacher: write teacher = NAME"):
        planned(tmp_path, text.replace('experts = "teacher"', 'experts = "teacher"\nteacher = "teacher"'))


def test_a_dry_run_tells_what_is_labelled(capsys: Captured, tmp_path: Path) -> None:
    planned(tmp_path)
    out, _ = succeed(capsys, "bench", tmp_path / "mine.toml", "-o", tmp_path / "r", "--dry-run")
    state = {line.split()[0]: line.split(maxsplit=1)[1].strip() for line in out.splitlines()}
    assert state["digits/sre2l-ipc1-seed0"] == "to do"
    assert state["digits/static-ipc1-seed0"] == "to do; labels for each image by teacher, 400 B at most"
    labels = "labels for 3 views of each image by teacher, 1.11 KB at most"  # 30 views of 17 + 20 bytes
    assert state[VIEWS] == f"to do; {labels}"


# Runs -------------------------------------------------------------------------------------------------------


def run(cells: Sequence[Cell], folder: Path, launch: Commands) -> dict[str, str]:
    return runner.run("mine", cells, folder, Environment(threads=1), 1, lambda event: None, launch)


def of_views(folder: Path, text: str = SUITE) -> list[Cell]:
    return [named(planned(folder, text), "views")]


def test_sets_are_labelled_between_distillation_and_evaluation(tmp_path: Path, finished: Path) -> None:
    cells, launch = of_views(tmp_path), Commands(finished)
    assert run(cells, tmp_path / "r", launch) == {}
    assert launch.seen == [
        "experts digits/experts-teacher-convnet2-w8-batch.h5",
        "distill views-ipc1-seed0/set.h5",
        "label views-ipc1-seed0/labelled.h5",
        "evaluate views-ipc1-seed0/evaluation.json",
    ]
    run(cells, tmp_path / "r", launch)
    assert len(launch.seen) == 4
    ((cell,), problems) = collect(tmp_path / "r")
    assert problems == []
    assert cell.label_seconds > 0
    assert [command.split()[1] for command in cell.commands] == ["experts", "distill", "label", "evaluate"]


@pytest.mark.parametrize(
    ("change", "state", "again"),
    [
        (("views = 3", "views = 4"), "to be labelled again", ["label", "evaluate"]),
        (("students = 2", "students = 3"), "to be evaluated again", ["evaluate"]),
        (('"fkd"\nlabel', '"fkd"\nlabels = "hard"\n#'), "to be labelled again", ["evaluate"]),
    ],
)  # fmt: skip
def test_only_what_changed_is_done_again(
    tmp_path: Path, finished: Path, change: tuple[str, str], state: str, again: list[str]
) -> None:
    launch = Commands(finished)
    run(of_views(tmp_path), tmp_path / "r", launch)
    cells = of_views(tmp_path, SUITE.replace(*change))
    assert cell_files.state(cells[0], tmp_path / "r") == state
    run(cells, tmp_path / "r", launch)
    assert [seen.partition(" ")[0] for seen in launch.seen[4:]] == again
    labelled = tmp_path / "r" / VIEWS / "labelled.h5"
    assert labelled.exists() == (cells[0].label is not None)  # no labels of other settings stay


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        ("evaluation.json", ["evaluate"]),
        ("labelled.h5", ["label", "evaluate"]),
        ("set.h5", ["distill", "label", "evaluate"]),
    ],
)
def test_a_stopped_cell_goes_on(tmp_path: Path, finished: Path, lost: str, again: list[str]) -> None:
    cells, launch = of_views(tmp_path), Commands(finished)
    run(cells, tmp_path / "r", launch)
    for name in ("result.json", lost):
        (tmp_path / "r" / VIEWS / name).unlink()
    run(cells, tmp_path / "r", launch)
    assert [seen.partition(" ")[0] for seen in launch.seen[4:]] == again


def test_the_time_of_a_stopped_labelling_counts(tmp_path: Path, finished: Path) -> None:
    cells, folder = of_views(tmp_path), tmp_path / "r"
    commands = Commands(finished)

    def stopped(words: Sequence[str], log: Path, threads: int) -> object:
        if words[0] == "label":
            commands.failing = "labelled"
        return commands(words, log, threads)

    assert run(cells, folder, stopped) != {}  # type: ignore[arg-type]
    before = cell_files.label_seconds(cells[0], folder)
    assert before > 0
    assert cell_files.state(cells[0], folder) == "distilled"
    run(cells, folder, Commands(finished))
    assert cell_files.label_seconds(cells[0], folder) > before
    (folder / VIEWS / "labelling.json").write_text("{")
    assert cell_files.label_seconds(cells[0], folder) == 0.0


def test_teachers_of_other_settings_are_refused(tmp_path: Path, finished: Path) -> None:
    run(of_views(tmp_path), tmp_path / "r", Commands(finished))
    with pytest.raises(UserError, match="experts-teacher-convnet2-w8-batch was begun with other settings"):
        run(of_views(tmp_path, SUITE.replace("epochs = 1", "epochs = 3")), tmp_path / "r", Commands(finished))


@pytest.mark.slow
def test_a_suite_with_labels_from_end_to_end(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole_run, launch = runner.run, OneProcess(processes=0)
    monkeypatch.setattr(runner, "run", lambda *told, **options: whole_run(*told, launch=launch, **options))
    planned(tmp_path)
    succeed(capsys, "bench", tmp_path / "mine.toml", "-o", tmp_path / "r", "--workers", "1")
    regimes = {each.method: each.main.regime for each in collect(tmp_path / "r")[0]}
    assert regimes == {"sre2l": "SL+KD", "static": "SL", "views": "SL", "hard": "HL"}
    table = (tmp_path / "r" / "table.md").read_text()
    for method, regime in regimes.items():
        said = next(
            line for line in table.splitlines() if f"labels {regime}:" in line and f"{method} (" in line
        )
        assert "random images with the same labels" in said
    report = json.loads((tmp_path / "r" / VIEWS / "evaluation.json").read_text())
    assert report["labels"] == "views"
    page = tmp_path / "report.html"
    succeed(capsys, "report", tmp_path / "r", "-o", page)
    assert "labels SL+KD" in page.read_text()
