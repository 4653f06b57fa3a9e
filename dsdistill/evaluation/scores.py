"""What accuracies say about a set beyond themselves: DD-Ranking's scores, and how it does across networks.

The scores are those of Li et al., "DD-Ranking: Rethinking the Evaluation of Dataset Distillation" (2025,
arXiv 2505.13300). All accuracies and scores are fractions, as the formulas need: LRS and ARS squash a number
in [-1, 1] to [0, 1].

The authors' package (ddranking 0.2.0) differs. It puts percents into LRS and ARS, where a set that loses a
few points gets -0.157 whatever it loses, and one that gains some gets far more than 1. Its HLR and IOR,
divided by 100, are the ones defined here; but its accuracies are the best over the epochs on the test images,
and random images get the best of five learning rates. Here every student is tested once, at its last epoch,
and all sets are trained on alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dsdistill.errors import UserError
from dsdistill.evaluation.baselines import RANDOM, WHOLE
from dsdistill.evaluation.rows import DISTILLED, DISTILLED_HARD, PLAIN, Row

# Formulas ---------------------------------------------------------------------------------------------------


def hard_label_recovery(whole: float, distilled: float) -> float:
    """Return HLR = acc(whole data set) - acc(distilled set), both under hard labels; lower is better.

    Raises:
        UserError: an accuracy is not a fraction.
    """
    return _fraction(whole) - _fraction(distilled)


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


def augmentation_robust_score(augmented: float, plain: float, weight: float = 0.5) -> float:
    """Return ARS = (e^β - e^-1) / (e - e^-1) with β = γ·augmented + (1 - γ)·plain, in [0, 1].

    Args:
        augmented: IOR where students are trained with the protocol's augmentation, in [-1, 1].
        plain: IOR where they are trained without any.
        weight: γ in [0, 1].

    Raises:
        UserError: a number is out of its range.
    """
    return _weighted(augmented, plain, weight)


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
    """Compute every score whose ingredients were measured, from means over students; the others are absent.

    Args:
        soft_labels: whether the rows "distilled" come from soft labels: HLR and LRS then need the rows
            "distilled-hard".

    Returns:
        ``networks``: by network, ``ior`` (needs the baseline random), ``hlr`` and ``whole_epochs`` (needs
        whole, the ceiling of that many epochs, which may be fewer than the other students'), ``lrs`` (needs
        both), ``plain_ior`` and ``ars`` (need set and random without augmentation as well);
        ``cross_architecture``: ``networks`` (how many), ``mean``, ``worst`` and ``worst_network`` of the
        distilled set's accuracies, where there are several. Fractions all.
    """
    found: dict[str, Any] = {}
    each = {
        network: _of_network(network, rows, soft_labels) for network in dict.fromkeys(r.network for r in rows)
    }
    if measured := {network: scores for network, scores in each.items() if scores}:
        found["networks"] = measured
    accuracies = {row.network: row.mean / 100 for row in rows if row.set == DISTILLED}
    if len(accuracies) > 1:
        worst = min(accuracies, key=accuracies.__getitem__)
        found["cross_architecture"] = {
            "networks": len(accuracies),
            "mean": sum(accuracies.values()) / len(accuracies),
            "worst": accuracies[worst],
            "worst_network": worst,
        }
    return found


def _of_network(network: str, rows: Sequence[Row], soft_labels: bool) -> dict[str, float]:
    of_set = {row.set: row for row in rows if row.network == network}
    accuracy = {name: row.mean / 100 for name, row in of_set.items()}
    hard = DISTILLED_HARD if soft_labels else DISTILLED
    scores: dict[str, float] = {}
    if {DISTILLED, RANDOM} <= accuracy.keys():
        scores["ior"] = improvement_over_random(accuracy[DISTILLED], accuracy[RANDOM])
    if {hard, WHOLE} <= accuracy.keys():
        scores["hlr"] = hard_label_recovery(accuracy[WHOLE], accuracy[hard])
        scores["whole_epochs"] = of_set[WHOLE].epochs
    if {"ior", "hlr"} <= scores.keys():
        scores["lrs"] = label_robust_score(scores["ior"], scores["hlr"])
    plain = [accuracy.get(name + PLAIN) for name in (DISTILLED, RANDOM)]
    if "ior" in scores and plain[0] is not None and plain[1] is not None:
        scores["plain_ior"] = improvement_over_random(plain[0], plain[1])
        scores["ars"] = augmentation_robust_score(scores["ior"], scores["plain_ior"])
    return scores


def told(scores: Mapping[str, Any]) -> str:
    """Say in one line what `of_rows` found; "" where it found nothing."""
    networks = scores.get("networks", {})
    parts = []
    for network, found in networks.items():
        words = []
        if "ior" in found:
            words.append(f"IOR {100 * found['ior']:+.2f} points")
        if "hlr" in found:
            words.append(
                f"HLR {100 * found['hlr']:+.2f} points (whole data set, {found['whole_epochs']} epochs)"
            )
        if "lrs" in found:
            words.append(f"LRS {found['lrs']:.3f}")
        if "ars" in found:
            words.append(f"ARS {found['ars']:.3f} (IOR {100 * found['plain_ior']:+.2f} without augmentation)")
        name = f"{network}: " if len(networks) > 1 or "cross_architecture" in scores else ""
        parts.append(name + ", ".join(words))
    if across := scores.get("cross_architecture"):
        parts.append(
            f"{across['networks']} networks: mean {100 * across['mean']:.2f} %, "
            f"worst {100 * across['worst']:.2f} % ({across['worst_network']})"
        )
    return "; ".join(parts)
