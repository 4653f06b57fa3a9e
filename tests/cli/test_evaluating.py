"""The command evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import dsdistill
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.storage import set_file, set_results
from tests.helpers.cli import FAST, Captured, refused, succeed
from tests.helpers.evaluation import write_digits, write_stripes


def test_evaluate_prints_and_stores_the_results(capsys: Captured, made: Path) -> None:
    results = made.with_suffix(".json")
    out, _ = succeed(capsys, "evaluate", made, *FAST, "--json", results)
    assert "distilled" in out
    assert "random" in out
    assert [row["set"] for row in json.loads(results.read_text())["rows"]] == ["distilled", "random"]
    out, _ = succeed(capsys, "info", made)
    assert out.count("2 students") == 2
    assert out.count(" epochs: ") == 2
    succeed(capsys, "evaluate", made, *FAST, "--no-save", "--baselines", "")
    assert len(set_results.results(made)) == 2


@pytest.mark.slow
def test_evaluate_takes_a_seed_a_precision_and_scores(
    capsys: Captured, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsdistill.runtime.device._multiplies_bf16", lambda device: True)
    results = made.with_suffix(".json")
    words = ["evaluate", made, *FAST, "--json", results, "--no-save"]
    succeed(capsys, *words, "--seed", "3", "--precision", "fp32", "--scores")
    found = json.loads(results.read_text())
    assert (found["seed"], found["precision"]) == (3, "fp32")
    plain = ["distilled-plain", "random-plain"]
    assert [row["set"] for row in found["rows"]] == ["distilled", "random", *plain]
    report = dsdistill.evaluate(
        made, epochs=2, repeats=2, networks="convnet2-w8", seed=3, precision="fp32", save=False
    )
    assert [row.values for row in report.rows] == [row["values"] for row in found["rows"][:2]]


def test_an_online_teacher_brings_controls_and_is_named(capsys: Captured, made: Path, pool: Path) -> None:
    results = made.with_suffix(".json")
    words = ["evaluate", made, *FAST, "--labels", "teacher", "--teacher", f"{pool}@1", "--leak"]
    out, _ = succeed(capsys, *words, "--json", results)
    found = json.loads(results.read_text())
    assert [(row["set"], row["regime"]) for row in found["rows"]] == [
        ("distilled", "SL+KD"),
        ("random", "HL"),
        ("random+labels", "SL+KD"),
        ("noise+labels", "SL+KD"),
        ("distilled-hard", "HL"),
        ("teacher", "HL"),
    ]
    assert (found["regime"], found["labels"]) == ("SL+KD", "teacher")
    assert "epoch 1 of pool.h5" in found["teacher"]
    assert {"calibration", "fidelity", "leak", "disagreement"} <= found["rows"][0].keys()
    assert "agrees with the teacher on" in " ".join(out.split())
    out, _ = succeed(capsys, "info", made)
    assert out.count("SL+KD") == 3


def test_labels_and_teachers_that_do_not_fit_are_one_sentence(
    capsys: Captured, made: Path, pool: Path
) -> None:
    """The set stays as it is, byte for byte."""
    before = made.read_bytes()
    stripes = write_stripes(made.parent)
    soft = write_digits(made.with_name("soft.h5"), soft=True)
    soft_before = soft.read_bytes()
    refusals: list[tuple[Path, list[str], str]] = [
        (made, ["--labels", "teacher"], "has a teacher label every batch: name one by --teacher FILE"),
        (made, ["--protocol", "rded"], "protocol 'rded' has a teacher label every batch"),
        (made, ["--protocol", "hald"], "protocol 'hald' trains on stored views"),
        (made, ["--labels", "static"], "--labels static trains on stored logits"),
        (made, ["--labels", "sotf"], "unknown source of labels 'sotf'"),
        (made, ["--teacher", f"{pool}@7"], "does not hold epoch 7"),
        (made, ["--teacher", f"{pool}#9"], "expert"),
        (made, ["--teacher", "absent.h5"], "absent.h5"),
        (made, ["--teacher", str(made)], "set.h5"),
        (made, ["--teacher", str(pool), "--dataset", stripes], "the set has 10 classes"),
        (made, ["--baselines", "teacher"], "needs the teacher"),
        (soft, ["--protocol", "pca-hard"], "the set has soft ones: pass --labels hard to leave them out"),
        (soft, ["--protocol", "pca"], "the set has soft ones: pass --labels hard to leave them out"),
        (soft, ["--protocol", "pca", "--labels", "static"], "use hard labels, or a protocol with cells = 1"),
        (soft, ["--labels", "views"], "--labels views trains on stored views"),
    ]
    for file, words, said in refusals:
        assert said in refused(capsys, "evaluate", file, *FAST, *words), words
    assert made.read_bytes() == before
    assert soft.read_bytes() == soft_before


def test_a_teacher_with_another_class_order_is_refused(capsys: Captured, tmp_path: Path, pool: Path) -> None:
    """Digits as their pixels are, with their names in reverse."""
    task, train = catalog.load(DataConfig(name="digits"), "train")
    pixels, labels = train.images.numpy(), train.labels.numpy()
    names, data = train.classes[::-1], tmp_path / "reversed.npz"
    np.savez(data, classes=names, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    images = train.unit(torch.cat([train.indices_of(label)[:1] for label in range(10)]))
    file = tmp_path / "reversed.h5"
    set_file.write(file, dsdistill.DistilledSet(images, torch.arange(10), names, task.preprocess))
    before = file.read_bytes()
    words = ["evaluate", file, *FAST, "--dataset", f"npz:{data}", "--teacher", pool]
    said = refused(capsys, *words)
    assert "trained with classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and this run has 9, 8, 7" in said
    assert file.read_bytes() == before


def test_a_temperature_that_is_not_positive_is_refused(capsys: Captured, made: Path) -> None:
    own = made.with_name("own.toml")
    text = 'title = "mine"\nsource = "mine"\nepochs = 2\n[labels]\nloss = "kl"\ntemperature = '
    for temperature in ("0.0", "-4.0"):
        own.write_text(text + temperature)
        said = refused(capsys, "evaluate", made, "--protocol", own)
        assert "'labels.temperature'" in said
        assert "greater than 0" in said


def test_protocols_are_listed_with_their_regime(capsys: Captured) -> None:
    out, _ = succeed(capsys, "protocols")
    lines = out.splitlines()
    for name, regime in (
        ("rded", "[SL+KD]"),
        ("hald", "[SL]"),
        ("pca-hard", "[HL]"),
        ("pca", "[HL]"),
        ("dm", "[SL or HL,"),
    ):
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert line.split(maxsplit=1)[1].startswith(regime)
