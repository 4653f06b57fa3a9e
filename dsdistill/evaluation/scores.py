"""Scores of an evaluation: DD-Ranking's, and accuracy across networks.

The scores are those of Li et al., "DD-Ranking: Rethinking the Evaluation of Dataset Distillation" (2025,
arXiv 2505.13300). All accuracies and scores are fractions, as the formulas need: LRS and ARS map a number in
[-1, 1] to [0, 1].

The authors' package (ddranking 0.2.0) differs. It puts percents into LRS and ARS: a set that loses a few
points gets -0.157, however many it loses, and one that gains some gets far more than 1. Its HLR and IOR,
divided by 100, are the ones defined here. But its accuracies are the best over the epochs on the test images,
and random images get the best of five learning rates. Here every student is tested once, after its last
epoch, and all sets are trained on in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dsdistill.errors import UserError
from dsdistill.evaluation.rows import DISTILLED, DISTILLED_HARD, FULL, RANDOM, UNAUGMENTED, Row

# Formulas ---------------------------------------------------------------------------------------------------


def hard_label_recovery(full: float, distilled: float) -> float:
    """Return HLR = acc(full data set) - acc(distilled set), both under hard labels; lower is better.

    Raises:
        UserError: an accuracy is not a fraction.
    """
    return _fraction(full) - _fraction(distilled)


def improvement_over_random(distilled: float, random: float) -> float:
    """Return IOR = acc(distilled set) - acc(as many random real images), both as the set's method trains.

    The distilled set has its own labels, soft where it has soft ones. Higher is better.

    Raises:
        UserError: an accuracy is not a fraction.
    """
    return _fraction(distilled) - _fraction(random)


def label_robust_score(ior: float, hlr: float, weight: float = 0.5) -> float:
    """Return LRS = (e^α - e^-1) / (e - e^-1) with α = w·IOR - (1 - w)·HLR, in [0, 1]; higher is better.

    Args:
        ior, hlr: differences of fractions, in [-1, 1].
        weight: w in [0, 1].

    Raises:
        UserError: a number is out of its range.
    """
    return _weighted(ior, -hlr, weight)


def augmentation_robust_score(augmented: float, unaugmented: float, weight: float = 0.5) -> float:
    """Return ARS = (e^β - e^-1) / (e - e^-1) with β = γ·augmented + (1 - γ)·unaugmented, in [0, 1].

    Args:
        augmented: IOR of students trained with the protocol's augmentation, in [-1, 1].
        unaugmented: IOR of students trained without augmentation, in [-1, 1].
        weight: γ in [0, 1].

    Raises:
        UserError: a number is out of its range.
    """
    return _weighted(augmented, unaugmented, weight)


def _fraction(accuracy: float) -> float:
    if not 0 <= accuracy <= 1:
        raise UserError(f"an accuracy must be a fraction in [0, 1], got {accuracy:g}; divide percents by 100")
    return accuracy


def _weighted(first: float, second: float, weight: float) -> float:
    for difference in (first, second):
        if not -1 <= difference <= 1:
            raise UserError(
                f"a difference of accuracies must lie in [-1, 1], got {difference:g}; divide percents by 100"
            )
    if not 0 <= weight <= 1:
        raise UserError(f"the weight must lie in [0, 1], got {weight:g}")
    mixed = weight * first + (1 - weight) * second
    return (math.exp(mixed) - math.exp(-1)) / (math.e - math.exp(-1))


# Of an evaluation -------------------------------------------------------------------------------------------


def of_rows(rows: Sequence[Row], soft_labels: bool) -> dict[str, Any]:
    """Compute every score whose rows are present, from means over students; the others are absent.

    Args:
        soft_labels: whether the rows "distilled" come from soft labels: HLR and LRS then need the rows
            "distilled-hard".

    Returns:
        ``networks``: by network, ``ior`` (needs the baseline random); ``hlr`` and ``full_epochs`` (need full,
        whose epochs may be fewer than the other students'); ``lrs`` (needs both baselines); ``plain_ior`` and
        ``ars`` (need set and random without augmentation as well).
        ``cross_architecture``, where there are several networks: ``networks`` (how many), and ``mean``,
        ``worst`` and ``worst_network`` of the distilled set's accuracies. All are fractions.
    """
    scores: dict[str, Any] = {}
    rows = [row for row in rows if row.transfer is None]  # which are compared data set by data set
    names = dict.fromkeys(row.network for row in rows)
    networks = {network: _of_network(network, rows, soft_labels) for network in names}
    if networks := {network: values for network, values in networks.items() if values}:
        scores["networks"] = networks
    accuracies = {row.network: row.mean / 100 for row in rows if row.set == DISTILLED}
    if len(accuracies) > 1:
        worst = min(accuracies, key=accuracies.__getitem__)
        scores["cross_architecture"] = {
            "networks": len(accuracies),
            "mean": sum(accuracies.values()) / len(accuracies),
            "worst": accuracies[worst],
            "worst_network": worst,
        }
    return scores


def _of_network(network: str, rows: Sequence[Row], soft_labels: bool) -> dict[str, float]:
    by_set = {row.set: row for row in rows if row.network == network}
    accuracy = {name: row.mean / 100 for name, row in by_set.items()}
    hard = DISTILLED_HARD if soft_labels else DISTILLED
    scores: dict[str, float] = {}
    if {DISTILLED, RANDOM} <= accuracy.keys():
        scores["ior"] = improvement_over_random(accuracy[DISTILLED], accuracy[RANDOM])
    if {hard, FULL} <= accuracy.keys():
        scores["hlr"] = hard_label_recovery(accuracy[FULL], accuracy[hard])
        scores["full_epochs"] = by_set[FULL].epochs
    if {"ior", "hlr"} <= scores.keys():
        scores["lrs"] = label_robust_score(scores["ior"], scores["hlr"])
    unaugmented = {name + UNAUGMENTED for name in (DISTILLED, RANDOM)}
    if "ior" in scores and unaugmented <= accuracy.keys():
        scores["plain_ior"] = improvement_over_random(
            accuracy[DISTILLED + UNAUGMENTED], accuracy[RANDOM + UNAUGMENTED]
        )
        scores["ars"] = augmentation_robust_score(scores["ior"], scores["plain_ior"])
    return scores


def sentence(scores: Mapping[str, Any]) -> str:
    """Write the scores of `of_rows` in one line; "" where there are none."""
    networks = scores.get("networks", {})
    several = len(networks) > 1 or "cross_architecture" in scores
    parts = [(f"{network}: " if several else "") + _terms(values) for network, values in networks.items()]
    if across := scores.get("cross_architecture"):
        parts.append(
            f"{across['networks']} networks: mean {100 * across['mean']:.2f} %, "
            f"worst {100 * across['worst']:.2f} % ({across['worst_network']})"
        )
    return "; ".join(parts)


def full_epochs(scores: Mapping[str, float]) -> float | None:
    """Return the epochs on the full data set of one network's scores; files may say ``whole_epochs``."""
    return scores.get("full_epochs", scores.get("whole_epochs"))


def _terms(scores: Mapping[str, float]) -> str:
    """Write the scores of one network."""
    terms = []
    if "ior" in scores:
        terms.append(f"IOR {100 * scores['ior']:+.2f} points")
    if "hlr" in scores:
        epochs = full_epochs(scores)
        terms.append(f"HLR {100 * scores['hlr']:+.2f} points (full data set, {epochs} epochs)")
    if "lrs" in scores:
        terms.append(f"LRS {scores['lrs']:.3f}")
    if "ars" in scores:
        terms.append(f"ARS {scores['ars']:.3f} (IOR {100 * scores['plain_ior']:+.2f} without augmentation)")
    return ", ".join(terms)
