"""DD-Ranking's scores by hand, and which of them rows give."""

from __future__ import annotations

import pytest

from dsdistill.errors import UserError
from dsdistill.evaluation import scores
from dsdistill.evaluation.rows import Row


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
    own, random, full = row("distilled", 65.3), row("random", 31.0), row("full", 84.8, epochs=10)
    assert scores.of_rows([own], False) == {}
    assert scores.of_rows([], False) == {}
    assert scores.sentence({}) == ""
    assert scores.of_rows([own, row("random@bytes", 40.0), row("herding", 40.0)], False) == {}
    result = scores.of_rows([own, random], False)["networks"]
    assert result == {"convnet3": {"ior": pytest.approx(0.343)}}
    result = scores.of_rows([own, full], False)["networks"]
    assert result == {"convnet3": {"hlr": pytest.approx(0.195), "full_epochs": 10}}
    result = scores.of_rows([own, random, full], False)["networks"]["convnet3"]
    assert result["lrs"] == pytest.approx(scores.label_robust_score(0.343, 0.195))


def test_soft_labels_do_not_recover_hard_ones() -> None:
    rows = [row("distilled", 65.3), row("random", 31.0), row("full", 84.8)]
    assert scores.of_rows(rows, soft_labels=True)["networks"] == {"convnet3": {"ior": pytest.approx(0.343)}}
    rows.append(row("distilled-hard", 60.0))
    result = scores.of_rows(rows, soft_labels=True)["networks"]["convnet3"]
    assert result["ior"] == pytest.approx(0.343)
    assert result["hlr"] == pytest.approx(0.248)
    assert result["lrs"] == pytest.approx(scores.label_robust_score(0.343, 0.248))


def test_networks_are_scored_apart_and_together() -> None:
    means = {"convnet3": 60.0, "mlp": 30.0, "resnet18": 45.0}
    rows = [row("distilled", mean, network) for network, mean in means.items()]
    result = scores.of_rows([*rows, row("random", 50.0, "convnet3")], False)
    assert result["networks"] == {"convnet3": {"ior": pytest.approx(0.1)}}
    assert result["cross_architecture"] == {
        "networks": 3,
        "mean": pytest.approx(0.45),
        "worst": pytest.approx(0.3),
        "worst_network": "mlp",
    }
    assert scores.sentence(result) == (
        "convnet3: IOR +10.00 points; 3 networks: mean 45.00 %, worst 30.00 % (mlp)"
    )


def test_the_full_data_set_is_named_with_its_epochs() -> None:
    rows = [row("distilled", 65.3), row("random", 31.0), row("full", 84.8, epochs=10)]
    line = "IOR +34.30 points, HLR +19.50 points (full data set, 10 epochs), LRS 0.302"
    of_today = scores.of_rows(rows, False)
    assert scores.sentence(of_today) == line
    (network,) = of_today["networks"].values()
    network["whole_epochs"] = network.pop("full_epochs")  # as files may have it
    assert scores.sentence(of_today) == line


def test_augmentation_is_scored_by_the_gain_with_it_and_without() -> None:
    rows = [row("distilled", 60.0), row("random", 30.0), row("distilled-plain", 50.0)]
    assert "ars" not in scores.of_rows(rows, False)["networks"]["convnet3"]
    result = scores.of_rows([*rows, row("random-plain", 40.0)], False)
    assert result["networks"]["convnet3"] == {
        "ior": pytest.approx(0.3),
        "plain_ior": pytest.approx(0.1),
        "ars": pytest.approx(scores.augmentation_robust_score(0.3, 0.1)),
    }
    assert scores.sentence(result) == "IOR +30.00 points, ARS 0.363 (IOR +10.00 without augmentation)"
