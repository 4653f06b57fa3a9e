"""DD-Ranking's scores by hand, and which of them an evaluation reports."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.selection import random_selection
from dsdistill.errors import UserError
from dsdistill.evaluation import scores
from dsdistill.evaluation.evaluate import judge
from dsdistill.evaluation.rows import Row
from dsdistill.evaluation.run import evaluate
from dsdistill.seeding import generator
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet
from tests.helpers.evaluation import NETWORK, distilled, real, task, tiny


def row(kind: str, mean: float, network: str = "convnet3", epochs: int = 1000) -> Row:
    return Row(kind, network, "dm", epochs, mean, 0.5, [mean], 10, 10, 1.0)


# Formulas ---------------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    assert scores.hard_label_recovery(0.848, 0.653) == pytest.approx(0.195)
    assert scores.improvement_over_random(0.653, 0.31) == pytest.approx(0.343)
    assert scores.improvement_over_random(0.2, 0.3) == pytest.approx(-0.1)
    # alpha = 0.5 · 0.343 - 0.5 · 0.195 = 0.074; (e^0.074 - 0.3678794) / (2.7182818 - 0.3678794)
    assert scores.label_robust_score(0.343, 0.195) == pytest.approx((1.0768068 - 0.3678794) / 2.3504024)
    # alpha = 0.25 · 0.4 - 0.75 · 0.2 = -0.05
    score = scores.label_robust_score(0.4, 0.2, weight=0.25)
    assert score == pytest.approx((0.9512294 - 0.3678794) / 2.3504024)
    # beta = 0.5 · 0.3 + 0.5 · 0.1 = 0.2
    assert scores.augmentation_robust_score(0.3, 0.1) == pytest.approx((1.2214028 - 0.3678794) / 2.3504024)
    assert scores.augmentation_robust_score(0.3, 0.1, weight=1) == pytest.approx(
        (1.3498588 - 0.3678794) / 2.3504024
    )


def test_scores_lie_between_0_and_1() -> None:
    assert scores.label_robust_score(1, -1) == pytest.approx(1)
    assert scores.label_robust_score(-1, 1) == pytest.approx(0)
    assert scores.label_robust_score(0, 0) == pytest.approx(1 / (1 + 2.7182818))
    assert scores.augmentation_robust_score(1, 1) == pytest.approx(1)
    assert scores.augmentation_robust_score(-1, -1) == pytest.approx(0)


def test_percents_are_refused() -> None:
    with pytest.raises(UserError, match=r"fraction in \[0, 1\], got 84.8; divide percents by 100"):
        scores.hard_label_recovery(84.8, 0.65)
    with pytest.raises(UserError, match=r"got -0\.1"):
        scores.improvement_over_random(-0.1, 0.65)
    with pytest.raises(UserError, match="got nan"):
        scores.improvement_over_random(float("nan"), 0.65)
    with pytest.raises(UserError, match=r"lie in \[-1, 1\], got 19.5; divide percents by 100"):
        scores.label_robust_score(0.3, -19.5)
    with pytest.raises(UserError, match="weight must lie"):
        scores.augmentation_robust_score(0.3, 0.1, weight=2)


# Of rows ----------------------------------------------------------------------------------------------------


def test_only_what_was_measured_is_scored() -> None:
    own, random, whole = row("distilled", 65.3), row("random", 31.0), row("whole", 84.8, epochs=10)
    assert scores.of_rows([own], False) == {}
    assert scores.of_rows([], False) == {}
    assert scores.told({}) == ""
    assert scores.of_rows([own, row("random@bytes", 40.0), row("herding", 40.0)], False) == {}
    found = scores.of_rows([own, random], False)["networks"]
    assert found == {"convnet3": {"ior": pytest.approx(0.343)}}
    found = scores.of_rows([own, whole], False)["networks"]
    assert found == {"convnet3": {"hlr": pytest.approx(0.195), "whole_epochs": 10}}
    found = scores.of_rows([own, random, whole], False)["networks"]["convnet3"]
    assert found["lrs"] == pytest.approx(scores.label_robust_score(0.343, 0.195))


def test_soft_labels_do_not_recover_hard_ones() -> None:
    rows = [row("distilled", 65.3), row("random", 31.0), row("whole", 84.8)]
    assert scores.of_rows(rows, soft_labels=True)["networks"] == {"convnet3": {"ior": pytest.approx(0.343)}}
    rows.append(row("distilled-hard", 60.0))
    found = scores.of_rows(rows, soft_labels=True)["networks"]["convnet3"]
    assert found["ior"] == pytest.approx(0.343)
    assert found["hlr"] == pytest.approx(0.248)
    assert found["lrs"] == pytest.approx(scores.label_robust_score(0.343, 0.248))


def test_networks_are_scored_apart_and_together() -> None:
    means = {"convnet3": 60.0, "mlp": 30.0, "resnet18": 45.0}
    rows = [row("distilled", mean, network) for network, mean in means.items()]
    found = scores.of_rows([*rows, row("random", 50.0, "convnet3")], False)
    assert found["networks"] == {"convnet3": {"ior": pytest.approx(0.1)}}
    assert found["cross_architecture"] == {
        "networks": 3,
        "mean": pytest.approx(0.45),
        "worst": pytest.approx(0.3),
        "worst_network": "mlp",
    }
    assert scores.told(found) == (
        "convnet3: IOR +10.00 points; 3 networks: mean 45.00 %, worst 30.00 % (mlp)"
    )


def test_the_whole_data_set_is_told_with_its_epochs() -> None:
    rows = [row("distilled", 65.3), row("random", 31.0), row("whole", 84.8, epochs=10)]
    assert scores.told(scores.of_rows(rows, False)) == (
        "IOR +34.30 points, HLR +19.50 points (whole data set, 10 epochs), LRS 0.302"
    )


def test_augmentation_is_scored_by_the_gain_with_it_and_without() -> None:
    rows = [row("distilled", 60.0), row("random", 30.0), row("distilled-plain", 50.0)]
    assert "ars" not in scores.of_rows(rows, False)["networks"]["convnet3"]
    found = scores.of_rows([*rows, row("random-plain", 40.0)], False)
    assert found["networks"]["convnet3"] == {
        "ior": pytest.approx(0.3),
        "plain_ior": pytest.approx(0.1),
        "ars": pytest.approx(scores.augmentation_robust_score(0.3, 0.1)),
    }
    assert scores.told(found) == "IOR +30.00 points, ARS 0.363 (IOR +10.00 without augmentation)"


# In an evaluation -------------------------------------------------------------------------------------------


def test_hard_labels_are_judged_where_asked_for() -> None:
    def sets(soft: bool, hard: bool) -> list[Row]:
        protocol = tiny(epochs=4, repeats=1, augmentation="none")
        return judge(distilled(soft=soft), task(), real(9), real(40, 1), protocol, [NETWORK], scores=hard)

    assert [row.set for row in sets(soft=True, hard=False)] == ["distilled", "random"]
    assert [row.set for row in sets(soft=False, hard=True)] == ["distilled", "random"]
    own, hard, _ = sets(soft=True, hard=True)
    assert (own.set, hard.set, hard.images, hard.decoded) == ("distilled", "distilled-hard", 9, 9)
    assert hard.values == sets(soft=False, hard=False)[0].values != own.values


def test_students_without_augmentation_are_judged_where_asked_for() -> None:
    def sets(scores: bool, **options: Any) -> list[Row]:
        protocol = tiny(epochs=4, repeats=1, **options)
        return judge(distilled(), task(), real(9), real(40, 1), protocol, [NETWORK], scores=scores)

    augmented = sets(True, augmentation="scale_rotate", cutmix=0.5)
    assert [row.set for row in augmented] == ["distilled", "random", "distilled-plain", "random-plain"]
    plain = sets(True, augmentation="none", cutmix=0.0)
    assert [row.set for row in plain] == ["distilled", "random"]  # both would be the same
    assert [row.values for row in augmented[2:]] == [row.values for row in plain]
    assert [row.values for row in augmented[:2]] != [row.values for row in plain]
    assert [(row.images, row.decoded) for row in augmented] == [(9, 9)] * 4


@pytest.fixture(scope="module")
def soft_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random digits of each class with soft labels, as a distilled set."""
    task, train = catalog.load(DataConfig(name="digits"), "train")
    chosen = random_selection(train, torch.full((10,), 2), generator(0, "digits"))
    labels = train.labels[chosen]
    path = tmp_path_factory.mktemp("sets") / "set.h5"
    about = {"dataset": "digits", "network": "mlp", "machine": "a computer", "seconds": 12.0}
    made = DistilledSet(
        train.unit(chosen),
        labels,
        train.classes,
        task.preprocess,
        torch.nn.functional.one_hot(labels, 10).float() * 2,
        attributes=about,
    )
    set_file.write(path, made)
    return path


def test_a_report_shows_its_scores(soft_digits: Path, tmp_path: Path) -> None:
    report = evaluate(
        soft_digits,
        repeats=1,
        epochs=2,
        device="cpu",
        networks="mlp, convnet2-w8",
        baselines="random, whole",
        scores=True,
        json=tmp_path / "report.json",
    )
    sets = ["distilled", "distilled-hard", "random", "whole", "distilled-plain", "random-plain"]
    assert [row.set for row in report.rows] == sets * 2
    own, hard, random, whole, plain, random_plain = (row.mean / 100 for row in report.rows[:6])
    found = report.scores()["networks"]["mlp"]
    assert found["ior"] == pytest.approx(own - random)
    assert found["hlr"] == pytest.approx(whole - hard)
    assert found["lrs"] == pytest.approx(scores.label_robust_score(own - random, whole - hard))
    assert found["ars"] == pytest.approx(scores.augmentation_robust_score(own - random, plain - random_plain))
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["scores"] == json.loads(json.dumps(report.scores()))
    assert written["soft_labels"] is True
    assert written["distil_machine"] == "a computer"
    cost, said = str(report.table().caption).split("\n")
    assert "distilled in 12 s" in cost
    assert cost.endswith("made on a computer")
    assert "(whole data set, 2 epochs)" in said
    assert "2 networks: mean" in said
    stored = set_file.results(soft_digits)
    assert [result["set"] for result in stored] == [row.set for row in report.rows]
    assert "scores" not in stored[0]

    bare = dataclasses.replace(report, rows=report.rows[:1])
    assert "IOR" not in str(bare.table().caption)
    assert bare.to_dict()["scores"] == {}
