"""Evaluation from a file to a report: defaults, saved results, resuming."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dsdistill.data import catalog, hf
from dsdistill.data.config import DataConfig
from dsdistill.errors import UserError
from dsdistill.evaluation import scores
from dsdistill.evaluation.run import evaluate
from dsdistill.evaluation.students import train_students
from dsdistill.runtime import provenance
from dsdistill.storage import set_file, set_results
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.callbacks import Told
from tests.helpers.evaluation import PACKAGE, PREPROCESS, real, write_digits, write_stripes
from tests.helpers.storage import changed


def test_evaluate_writes_json_and_results(digits_file: Path, tmp_path: Path) -> None:
    notices: list[str] = []
    report = evaluate(
        digits_file,
        repeats=2,
        epochs=3,
        device="cpu",
        json=tmp_path / "report.json",
        callbacks=[Told(notify=notices.append)],
    )
    assert notices == []
    written = json.loads((tmp_path / "report.json").read_text())
    assert written == json.loads(json.dumps(report.to_dict()))
    assert {"rows", "file", "dataset", "epochs", "seed", "machine", "date", "packages"} <= set(written)
    assert [row["set"] for row in written["rows"]] == ["distilled", "random"]
    assert set(written["rows"][0]) >= {"set", "network", "protocol", "mean", "std", "values"}
    assert written["rows"][0]["network"] == "convnet3-w8"
    assert (written["dataset"], written["epochs"], written["repeats"]) == ("digits", 3, 2)
    stored = set_results.results(digits_file)
    assert [row["values"] for row in stored] == [row["values"] for row in written["rows"]]
    assert stored[0]["dataset"] == "digits"
    assert set_file.load(digits_file).classes  # still verifies


def test_students_are_those_that_a_set_is_made_for(digits_file: Path, tmp_path: Path) -> None:
    content = set_file.read(digits_file)
    made = dataclasses.replace(content, attributes={**content.attributes, "student": "mlp"})
    set_file.write(tmp_path / "made.h5", made, "float32")
    report = evaluate(tmp_path / "made.h5", repeats=1, epochs=1, device="cpu", baselines="")
    assert [row.network for row in report.rows] == ["mlp"]


def test_a_repeated_evaluation_is_stored_once(digits_file: Path) -> None:
    def evaluated(**changes: Any) -> list[float]:
        options = {"repeats": 2, "epochs": 1, "networks": "mlp", "baselines": "", "device": "cpu"}
        return evaluate(digits_file, **options | changes).rows[0].values

    assert evaluated() == evaluated()
    assert evaluated(seed=1) == evaluated(seed=1) != evaluated()
    evaluated(epochs=2)
    stored = set_results.results(digits_file)
    assert [(row["epochs"], row["seed"]) for row in stored] == [(1, 0), (1, 1), (2, 0)]


def test_what_a_kill_left_of_the_outputs_is_deleted(digits_file: Path, tmp_path: Path) -> None:
    mine, report = (tmp_path / f".{name}.0a1b2c3d.part" for name in ("other.h5", "report.json"))
    left = digits_file.with_name(f".{digits_file.name}.0a1b2c3d.part")
    for path in (mine, report, left):
        path.touch()
    options: dict[str, Any] = {"repeats": 1, "epochs": 1, "networks": "mlp", "baselines": "", "device": "cpu"}
    evaluate(digits_file, **options, json=tmp_path / "report.json")
    assert [path.exists() for path in (mine, report, left)] == [True, False, False]


@pytest.mark.usefixtures("brief_choice")
def test_a_stopped_evaluation_continues_from_its_stored_rows(
    digits_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices: list[str] = []

    def evaluated(**changes: Any) -> list[tuple[str, str, list[float]]]:
        options = {"repeats": 2, "epochs": 2, "networks": "mlp,convnet2-w4", "baselines": "random,herding"}
        told: dict[str, Any] = {
            "device": "cpu",
            "callbacks": [Told(notify=notices.append, progress=progress)],
        }
        report = evaluate(digits_file, **options | told | changes)
        return [(row.network, row.set, row.values) for row in report.rows]

    trained: list[str] = []

    def training(build: Any, *rest: Any, **options: Any) -> list[Any]:
        trained.append(type(build(0)).__name__)
        return train_students(build, *rest, **options)

    def progress(what: str, done: int, total: int) -> None:
        ticks.append((what, done, total))
        if stopping and what == "convnet2-w4 on random":
            raise KeyboardInterrupt

    monkeypatch.setattr("dsdistill.evaluation.trainers.train_students", training)
    stopping, ticks = True, list[tuple[str, int, int]]()
    with pytest.raises(KeyboardInterrupt):
        evaluated()
    assert len(set_results.results(digits_file)) == 4
    trained.clear()
    ticks.clear()
    stopping = False
    rows = evaluated(resume=True)
    assert trained == ["ConvNet", "ConvNet"]
    assert "4 of the 4 rows in the file are kept" in notices
    assert [row[:2] for row in rows] == [
        (network, kind) for network in ("mlp", "convnet2-w4") for kind in ("distilled", "random", "herding")
    ]
    assert ticks[-1][1] == ticks[-1][2]
    assert len(set_results.results(digits_file)) == 6
    assert evaluated(resume=True) == rows == evaluated()
    assert len(trained) == 2 + 6  # nothing, then everything
    evaluated(resume=True, repeats=1, baselines="")
    assert len(trained) == 8 + 2
    mine = digits_file.with_name("dm.toml")  # another protocol of the same name
    mine.write_text('title = ""\nsource = ""\nepochs = 2\nbatch_size = 7\n')
    evaluated(resume=True, protocol=mine, baselines="")
    assert len(trained) == 10 + 2
    assert any(each.startswith("0 of the 8 rows in the file are kept: all are of other") for each in notices)


def test_rows_without_a_leak_test_are_not_reused_for_one(digits_file: Path) -> None:
    options: dict[str, Any] = {"repeats": 1, "epochs": 1, "networks": "mlp", "device": "cpu"}
    before = evaluate(digits_file, **options)
    tested = evaluate(digits_file, **options, leak=True, resume=True)
    assert all(row.leak for row in tested.rows)
    assert [row.values for row in tested.rows] == [row.values for row in before.rows]
    assert evaluate(digits_file, **options, leak=True, resume=True).rows == tested.rows
    assert evaluate(digits_file, **options, resume=True).rows == tested.rows  # what is known is kept


@pytest.mark.parametrize(("ipc_max", "epochs"), [(2, 3), (1, 2)])
def test_the_protocol_is_read_for_the_data_set_and_the_ipc(
    digits_file: Path, ipc_max: int, epochs: int
) -> None:
    mine = digits_file.with_name("mine.toml")
    when = f'{{ dataset = ["digits"], ipc_max = {ipc_max} }}'
    settings = f"[[settings]]\nwhen = {when}\nset = {{ epochs = 3, batch_size = 4 }}\n"
    mine.write_text('title = ""\nsource = ""\nepochs = 2\n' + settings)
    told = {"repeats": 1, "networks": "mlp", "baselines": "", "device": "cpu", "save": False}
    report = evaluate(digits_file, protocol=mine, **told)
    assert (report.epochs, report.rows[0].epochs) == (epochs, epochs)
    whole = digits_file.with_name("mine.toml")
    batch = 4 if epochs == 3 else 256  # the same training, said without settings
    whole.write_text(f'title = ""\nsource = ""\nepochs = {epochs}\nbatch_size = {batch}\n')
    same = evaluate(digits_file, protocol=whole, **told)
    assert (same.conditions, same.rows[0].values) == (report.conditions, report.rows[0].values)


@pytest.fixture
def stripes_file(tmp_path: Path) -> Path:
    """A distilled set of real images that can be written anew."""
    name, data = write_stripes(tmp_path), real(3, seed=5)
    _, train = catalog.load(DataConfig(name=name), "train")
    about = {"dataset": name, "fingerprint": train.fingerprint}
    path = tmp_path / "stripes.h5"
    unit = data.unit(slice(None))
    set_file.write(path, DistilledSet(unit, data.labels, data.classes, PREPROCESS, attributes=about))
    return path


@pytest.mark.parametrize(
    ("other", "kept"),
    [("nothing", 2), ("threads", 2), ("machine", 0), ("code", 0), ("seed", 0), ("train", 0), ("test", 0)],
)
def test_rows_of_another_machine_code_seed_or_data_are_trained_anew(
    stripes_file: Path, monkeypatch: pytest.MonkeyPatch, other: str, kept: int
) -> None:
    def notices(**changes: Any) -> list[str]:
        sentences: list[str] = []
        options = {"repeats": 1, "epochs": 1, "networks": "mlp", "device": "cpu"} | changes
        evaluate(stripes_file, callbacks=[Told(notify=sentences.append)], **options)
        return sentences

    monkeypatch.setattr(provenance, "machine_name", lambda device: "a CPU, 2 threads")
    assert notices() == []
    if other in ("threads", "machine"):
        machine = "a CPU, 4 threads" if other == "threads" else "another CPU, 2 threads"
        monkeypatch.setattr(provenance, "machine_name", lambda device: machine)
    if other == "code":
        monkeypatch.setattr(provenance, "code_digest", lambda: "changed")
    if other in ("train", "test"):
        write_stripes(stripes_file.parent, **{f"{other}_seed": 7})
    *before, last = notices(resume=True, **{"seed": 1} if other == "seed" else {})
    assert last.startswith(f"{kept} of the 2 rows in the file are kept")
    assert len(set_results.results(stripes_file)) == 4 - kept
    name = f"npz:{stripes_file.with_suffix('.npz')}"
    unlike = f"{name} on this machine is not the data the set was distilled from"
    assert before == ([unlike] if other == "train" else [])


def test_evaluate_a_multi_formation(digits_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(
        path, dataclasses.replace(set_file.read(digits_file), multi_formation=MultiFormation(factor=2))
    )
    report = evaluate(path, repeats=1, epochs=1, device="cpu")
    assert [(row["images"], row["decoded"]) for row in set_results.results(path)] == [(20, 80), (20, 20)]
    assert list(report.table().columns[3].cells) == ["20 → 80 decoded", "20"]


def test_evaluate_at_the_same_bytes_and_on_the_full_training_set(digits_file: Path) -> None:
    names = "random, random@bytes, full, random"
    report = evaluate(digits_file, repeats=1, epochs=1, device="cpu", networks="mlp", baselines=names)
    fit = int(report.cost["real_images"])
    assert 20 < fit < 80  # the file holds 20 in float32, of values that 8 bits hold
    assert [row.images for row in report.rows] == [20, 20, fit, 1347]
    assert [row["images"] for row in set_results.results(digits_file)[-4:]] == [20, 20, fit, 1347]
    assert f"as many bytes as {fit} real images" in str(report.table().caption)
    assert list(report.table().columns[1].cells) == ["distilled", "random", "random@bytes", "full"]


@pytest.mark.slow
def test_a_caller_may_use_the_former_name_of_full(digits_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"repeats": 1, "epochs": 1, "networks": "mlp", "device": "cpu"}
    report = evaluate(digits_file, baselines="whole", **options)
    assert [row.set for row in report.rows] == ["distilled", "full"]
    assert [result["set"] for result in set_results.results(digits_file)] == ["distilled", "full"]
    former = write_digits(digits_file.with_name("former.h5"), network="convnet3-w8")
    for result in set_results.results(digits_file):  # as an earlier version stored them
        set_results.append_result(former, result | {"set": result["set"].replace("full", "whole")})
    monkeypatch.setattr(
        "dsdistill.evaluation.trainers.train_students", lambda *options: pytest.fail("trains")
    )
    again = evaluate(former, baselines="full", resume=True, **options)
    assert again.rows == report.rows
    assert len(set_results.results(former)) == 2


def test_evaluate_across_networks_without_saving(digits_file: Path) -> None:
    before = set_results.results(digits_file)
    report = evaluate(
        digits_file,
        networks="mlp, convnet3-w8",
        baselines="",
        repeats=1,
        epochs=2,
        protocol="dc",
        device="cpu",
        precision="fp32",
        save=False,
    )
    assert [(row.network, row.set) for row in report.rows] == [
        ("mlp", "distilled"),
        ("convnet3-w8", "distilled"),
    ]
    assert set_results.results(digits_file) == before
    table = report.table()
    assert table.row_count == 2
    assert "digits" in str(table.title)
    assert list(table.columns[4].cells) == [f"{row.mean:.2f}" for row in report.rows]  # one student: no ±


@pytest.mark.slow
def test_a_report_has_its_scores(tmp_path: Path) -> None:
    facts = {"network": "mlp", "machine": "a computer", "seconds": 12.0}
    soft_digits = write_digits(tmp_path / "set.h5", soft=True, **facts)  # type: ignore[arg-type]
    report = evaluate(
        soft_digits,
        repeats=1,
        epochs=2,
        device="cpu",
        networks="mlp, convnet2-w8",
        baselines="random, full",
        scores=True,
        json=tmp_path / "report.json",
    )
    sets = ["distilled", "distilled-hard", "random", "full", "distilled-plain", "random-plain"]
    assert [row.set for row in report.rows] == sets * 2
    own, hard, random, full, plain, random_plain = (row.mean / 100 for row in report.rows[:6])
    values = report.scores()["networks"]["mlp"]
    assert values["ior"] == pytest.approx(own - random)
    assert values["hlr"] == pytest.approx(full - hard)
    assert values["lrs"] == pytest.approx(scores.label_robust_score(own - random, full - hard))
    assert values["ars"] == pytest.approx(
        scores.augmentation_robust_score(own - random, plain - random_plain)
    )
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["scores"] == json.loads(json.dumps(report.scores()))
    assert written["soft_labels"] is True
    assert written["distil_machine"] == "a computer"
    cost, sentence, *measured = str(report.table().caption).split("\n")
    assert "distilled in 12 s" in cost
    assert cost.endswith("made on a computer")
    assert "(full data set, 2 epochs)" in sentence
    assert "2 networks: mean" in sentence
    assert [line.partition(":")[0] for line in measured] == ["mlp", "convnet2-w8"]
    stored = set_results.results(soft_digits)
    assert [result["set"] for result in stored] == [row.set for row in report.rows]
    assert "scores" not in stored[0]


def test_a_name_that_only_the_file_gives_is_not_fetched(
    digits_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[bool] = []

    def opened(name: str, fetch: bool) -> None:
        fetched.append(fetch)
        raise UserError(f"{name} was opened")

    monkeypatch.setattr(hf, "opened", opened)
    changed(digits_file, dataset="hf:anna/pets", data='{"name": "hf:anna/pets"}')
    options: list[dict[str, Any]] = [{}, {"download": True}, {"dataset": "hf:anna/pets"}]
    for each in options:
        with pytest.raises(UserError, match="hf:anna/pets was opened"):
            evaluate(digits_file, protocol="dm", device="cpu", **each)
    assert fetched == [False, True, True]


def test_what_is_missing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    data = real(2)
    set_file.write(path, DistilledSet(data.unit(slice(None)), data.labels, data.classes, PREPROCESS))
    with pytest.raises(UserError, match="name the data set"):
        evaluate(path)
    with pytest.raises(UserError, match="3 classes but digits has 10"):
        evaluate(path, dataset="digits")
    with pytest.raises(UserError, match="does not exist"):
        evaluate(path, dataset="digits", json=tmp_path / "absent" / "report.json")


@pytest.mark.slow
def test_evaluation_knows_no_engine() -> None:
    """Checked without the package's own ``__init__``, which offers distilling as well."""
    code = f"""
import sys, types
package = types.ModuleType("dsdistill")
package.__path__ = [{str(PACKAGE)!r}]
sys.modules["dsdistill"] = package
import dsdistill.evaluation.run
makers = ("engines", "supply", "experts", "distillation", "objectives.", "synthetic.set", "synthetic.initial")
found = {{m for m in sys.modules if m.startswith(tuple("dsdistill." + name for name in makers))}}
assert found <= {{"dsdistill.objectives." + name for name in ("precision", "labels")}}, found  # of no method
assert not {{"torchvision", "kornia", "matplotlib", "sklearn", "timm"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_permissions_of_an_evaluated_file_stay(digits_file: Path) -> None:
    told: dict[str, Any] = {"repeats": 1, "epochs": 1, "networks": "mlp", "baselines": "", "device": "cpu"}
    digits_file.chmod(0o600)
    evaluate(digits_file, **told)
    assert digits_file.stat().st_mode & 0o777 == 0o600
    digits_file.chmod(0o444)
    with pytest.raises(UserError, match=r"write-protected; .*--no-save"):
        evaluate(digits_file, **told)
    evaluate(digits_file, **told, save=False)
    assert len(set_results.results(digits_file)) == 1


def test_resuming_nothing_is_said(digits_file: Path) -> None:
    notices: list[str] = []
    told: dict[str, Any] = {"repeats": 1, "epochs": 1, "networks": "mlp", "baselines": "", "device": "cpu"}
    for _ in range(2):
        evaluate(digits_file, **told, resume=True, callbacks=[Told(notify=notices.append)])
    assert notices == [
        f"there are no results in {digits_file} to resume from: starting anew",
        "1 of the 1 rows in the file are kept",
    ]


def test_results_name_no_folder_and_those_that_do_are_reused(stripes_file: Path) -> None:
    told: dict[str, Any] = {"repeats": 1, "epochs": 1, "networks": "mlp", "baselines": "", "device": "cpu"}
    report = evaluate(stripes_file, **told)
    assert (report.file, report.dataset) == (stripes_file.name, "npz:stripes.npz")
    (row,) = set_results.results(stripes_file)
    assert row["dataset"] == "npz:stripes.npz"
    earlier = row | {"dataset": f"npz:{stripes_file.with_suffix('.npz')}", "values": [12.5]}
    set_file.write(stripes_file, set_file.read(stripes_file))  # without its results
    set_results.append_result(stripes_file, earlier)  # as an earlier version wrote it
    assert evaluate(stripes_file, **told, resume=True).rows[0].values == [12.5]
    assert len(set_results.results(stripes_file)) == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{", "'data' is not JSON"),
        ("[" * 100_000, "'data' is not JSON"),
        ("[]", "'data' holds no options"),
        ('{"name": 3}', "'data': key 'name' is 3"),
        ('{"name": "digits", "test_fraction": "x"}', "'data': key 'test_fraction' is 'x'"),
        ('{"name": "digits", "mirror": {}}', "'data': key 'mirror'"),
    ],
)
def test_a_stored_description_of_the_data_that_makes_no_sense(
    digits_file: Path, data: str, said: str
) -> None:
    changed(digits_file, data=data)
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        evaluate(digits_file, repeats=1, epochs=1, device="cpu")
    assert "\n" not in str(caught.value)


def test_results_of_other_programs_are_not_reused(digits_file: Path) -> None:
    options: dict[str, Any] = {"repeats": 1, "epochs": 1, "networks": "mlp", "baselines": "", "device": "cpu"}
    values = evaluate(digits_file, **options).rows[0].values
    stored = set_results.results(digits_file)[0]
    set_results.append_result(digits_file, stored | {"values": "many", "seconds": -1})
    set_results.append_result(digits_file, {"mean": 0.5})
    assert evaluate(digits_file, **options, resume=True).rows[0].values == values
