"""Wasserstein barycentres of one class: a few atoms whose distribution is nearest to that of its features.

WMDD (Liu et al., *Dataset Distillation via the Wasserstein Metric*, ICCV 2025) has n atoms x with weights b
stand for the features y of N real images, which weigh 1/N each, at the least

    W₂²(x, b) = min over plans T of Σ_ji T_ji ‖x_j - y_i‖²,    Σ_i T_ji = b_j,  Σ_j T_ji = 1/N.

For fixed weights, plan and atoms take turns: each atom moves to the mean of what its row of the plan carries
(Cuturi & Doucet 2014, algorithm 2). Weights follow mirror descent along the plan's potentials.

Plans are exact. N is large and n is small, so that `transport` works on the n atoms: each feature begins at
the atom that its potentials choose, and what an atom has too much goes to one that has too little, along
shortest paths from atom to atom, where a step costs what the best feature loses by it. Every such step keeps
the plan the best one for what the atoms have (successive shortest paths).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_TINY = 1e-12
"""Of a mass of 1: what is left of rounding."""
_ASCENT, _COLDEST = 60, 1e-3
"""Steps of the potentials before the plan is made exact, and the last of their temperatures."""


@dataclass(frozen=True, eq=False)
class Plan:
    """How n atoms are carried to N points at the least cost.

    Attributes:
        flow: float64 [n, N], from 0; its rows sum to the weights, its columns to 1/N.
        potentials: float64 [n], the derivative of the cost by the weights, but for a constant.
    """

    flow: Array
    potentials: Array

    def cost(self, costs: Array) -> float:
        """Return the sum of all costs [n, N]."""
        return float((self.flow * costs).sum())


def transport(costs: Array, weights: Array, potentials: Array | None = None) -> Plan:
    """Return an optimal plan between n weighted atoms and N points of equal weight.

    >>> import numpy
    >>> plan = transport(numpy.array([[0.0, 1.0, 2.0], [4.0, 2.0, 0.0]]), numpy.array([2 / 3, 1 / 3]))
    >>> (3 * plan.flow).round(6).tolist()
    [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    Args:
        costs: float64 [n, N], of a unit of mass.
        weights: float64 [n], from 0, with sum 1.
        potentials: [n], those of a similar problem, which save time; they do not change the cost.
    """
    start = np.zeros(len(costs)) if potentials is None else potentials
    start = _ascended(costs, weights, start, _ASCENT if potentials is None else _ASCENT // 3)
    points = costs.shape[1]
    flow = np.zeros_like(costs)
    flow[(costs - start[:, None]).argmin(0), np.arange(points)] = 1 / points
    steps = np.stack([_steps_from(atom, costs, flow) for atom in range(len(costs))])
    surplus = flow.sum(1) - weights
    while surplus.max() > _TINY:
        path = _shortest_path(steps, surplus > _TINY, surplus < 0)
        amount = _moved(path, min(surplus[path[0]], -surplus[path[-1]]), costs, flow)
        surplus[path[0]] -= amount
        surplus[path[-1]] += amount
        for atom in path:
            steps[atom] = _steps_from(atom, costs, flow)
    return Plan(flow, _distances(steps, np.zeros(len(costs)))[0])


def _moved(path: list[int], amount: float, costs: Array, flow: Array) -> float:
    """Move mass along a path of atoms, in place: each hands on what its next one gains most by.

    Args:
        path: atoms.
        amount: what to move at most.
        costs, flow: [n, N].

    Returns:
        what has been moved, as no point gives more than it has.
    """
    moves = []
    for source, goal in itertools.pairwise(path):
        gain = np.where(flow[source] > 0, costs[goal] - costs[source], np.inf)
        moves.append((source, goal, int(gain.argmin())))
    amount = min(amount, *(float(flow[source, point]) for source, _, point in moves))
    for source, goal, point in moves:
        left = flow[source, point] - amount
        flow[source, point] = left if left > _TINY / flow.shape[1] else 0.0
        flow[goal, point] += amount
    return amount


def _ascended(costs: Array, weights: Array, potentials: Array, steps: int) -> Array:
    """Return potentials near the best ones, by Sinkhorn's steps at a falling temperature.

    Args:
        costs, weights: of the problem.
        potentials: to start from.
        steps: the last so many of a whole descent of the temperature.
    """
    costs = costs - costs.mean(0)  # what differs from point to point alone changes no choice
    scale, aims = float(costs.std()), np.log(np.maximum(weights, _TINY))
    if not scale:
        return potentials
    for temperature in scale * np.geomspace(1, _COLDEST, _ASCENT)[-steps:]:
        logits = (potentials[:, None] - costs) / temperature
        shares = np.exp(logits - logits.max(0))
        shares = (shares / shares.sum(0)).mean(1)
        potentials = potentials + temperature * (aims - np.log(np.maximum(shares, _TINY)))
    return potentials


def _steps_from(atom: int, costs: Array, flow: Array) -> Array:
    """Return the least cost of moving some mass from an atom to each other one, [n]; infinite from none."""
    held = flow[atom] > 0
    if not held.any():
        return np.full(len(costs), np.inf)
    steps: Array = (costs[:, held] - costs[atom, held]).min(1)
    return steps


def _distances(steps: Array, start: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return the lengths of the shortest paths to each atom, and where each comes from; -1 at its start.

    Args:
        steps: [n, n], lengths that may be negative, without a ring of negative length.
        start: [n], what a path costs that begins at an atom; infinite where none does.
    """
    distances, before = start.copy(), np.full(len(start), -1)
    for _ in range(len(start)):
        through = distances[:, None] + steps
        nearest = through.argmin(0)
        shorter = through[nearest, np.arange(len(start))]
        better = shorter < distances - _TINY * (1 + np.abs(np.where(np.isfinite(distances), distances, 0)))
        if not better.any():
            break
        distances = np.where(better, shorter, distances)
        before = np.where(better, nearest, before)
    return distances, before


def _shortest_path(steps: Array, sources: NDArray[np.bool_], goals: NDArray[np.bool_]) -> list[int]:
    """Return the atoms of a shortest path from any source to any goal."""
    distances, before = _distances(steps, np.where(sources, 0.0, np.inf))
    path = [int(np.where(goals, distances, np.inf).argmin())]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    return path[::-1]


def free_support(
    points: Float[Tensor, "N D"],
    atoms: Float[Tensor, "n D"],
    weights: Float[Tensor, " n"] | None = None,
    rounds: int = 100,
    tolerance: float = 1e-7,
) -> Float[Tensor, "n D"]:
    """Return atoms of fixed weights that stand for points of equal weight.

    >>> points = torch.tensor([[0.0], [1.0], [8.0], [9.0]])
    >>> free_support(points, torch.tensor([[0.0], [1.0]]))
    tensor([[0.5000],
            [8.5000]], dtype=torch.float64)

    Args:
        points: the features of a class, of any float dtype.
        atoms: where they start.
        weights: with sum 1; equal by default.
        rounds: of planning and moving, at most.
        tolerance: the sum of squared movements below which it ends.

    Returns:
        float64, on the CPU.
    """
    real, support = _array(points), _array(atoms)
    mass = np.full(len(support), 1 / len(support)) if weights is None else _array(weights)
    potentials = None
    for _ in range(rounds):
        plan = transport(_squared_distances(support, real), mass, potentials)
        potentials, before = plan.potentials, support
        carried = plan.flow.sum(1, keepdims=True)
        support = np.where(carried > 0, plan.flow @ real / np.maximum(carried, _TINY**2), support)
        if ((support - before) ** 2).sum() < tolerance:
            break
    return torch.from_numpy(support)


def fixed_support(
    points: Float[Tensor, "N D"], atoms: Float[Tensor, "n D"], rounds: int = 100, step: float = 10.0
) -> Float[Tensor, " n"]:
    """Return weights with which fixed atoms stand for points of equal weight, by mirror descent.

    Costs are divided by the largest; weights begin equal, and stay positive. As the step does not shrink,
    weights may swing around the best ones, and those of the least cost so far are returned.

    >>> points = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    >>> fixed_support(points, torch.tensor([[0.0], [1.0]]), step=0.05).round(decimals=2)
    tensor([0.7500, 0.2500], dtype=torch.float64)

    Args:
        points: the features of a class.
        atoms: where the weights lie.
        rounds: steps, at most.
        step: their size η.

    Returns:
        float64 with sum 1, on the CPU.
    """
    costs = _squared_distances(_array(atoms), _array(points))
    costs /= costs.max() or 1.0
    weights = best = np.full(len(costs), 1 / len(costs))
    least, potentials = np.inf, None
    for _ in range(rounds):
        plan = transport(costs, weights, potentials)
        potentials = plan.potentials
        if (cost := plan.cost(costs)) < least:
            least, best = cost, weights
        moved = weights * np.exp(-step * (potentials - potentials.min()))
        moved /= moved.sum()
        change, weights = np.abs(moved - weights).sum(), moved
        if change < 1e-9:
            break
    return torch.from_numpy(best)


def weighted_barycentre(
    points: Float[Tensor, "N D"], atoms: Float[Tensor, "n D"], rounds: int = 10, damping: float = 0.2
) -> tuple[Float[Tensor, "n D"], Float[Tensor, " n"]]:
    """Return atoms that stand for points of equal weight, and weights of theirs.

    Each round finds weights for the atoms, atoms for the weights, and moves the old ones part of the way.

    >>> points = torch.tensor([[0.0], [0.0], [8.0], [8.0]])
    >>> atoms, weights = weighted_barycentre(points, torch.tensor([[0.0], [8.0]]))
    >>> atoms.flatten().tolist(), weights.tolist()
    ([0.0, 8.0], [0.5, 0.5])

    Args:
        points: the features of a class.
        atoms: where they start.
        rounds: at most; weights that no longer change end them.
        damping: the share θ of the way.

    Returns:
        atoms and weights, float64, on the CPU.
    """
    support = atoms.double().cpu()
    weights = fixed_support(points, support)
    for number in range(rounds):
        support = support.lerp(free_support(points, support, weights), damping)
        if number + 1 == rounds:
            break
        new_weights = fixed_support(points, support)
        if (new_weights - weights).norm() < 1e-6:
            break
        weights = new_weights
    return support, weights


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().double().cpu().numpy()
    return array


def _squared_distances(atoms: Array, points: Array) -> Array:
    """Return ‖x - y‖² of all pairs, [n, N]."""
    squares: Array = (atoms**2).sum(1)[:, None] + (points**2).sum(1) - 2 * atoms @ points.T
    return np.maximum(squares, 0)
