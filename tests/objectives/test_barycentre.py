"""Wasserstein barycentres: against linear programs, and against the plain loop of the paper's code."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from dsdistill.objectives.barycentre import fixed_support, free_support, transport, weighted_barycentre


def program(costs: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the cost of the best plan, the plan, and the potentials of the atoms."""
    atoms, points = costs.shape
    rows = np.kron(np.eye(atoms), np.ones(points))
    columns = np.tile(np.eye(points), atoms)
    sums = np.concatenate([weights, np.full(points, 1 / points)])
    found = linprog(costs.ravel(), A_eq=np.concatenate([rows, columns]), b_eq=sums)
    return float(found.fun), found.x.reshape(costs.shape), found.eqlin.marginals[:atoms]


def squared(atoms: np.ndarray, points: np.ndarray) -> np.ndarray:
    return ((atoms[:, None] - points[None]) ** 2).sum(-1)


@pytest.mark.parametrize("seed", range(12))
def test_plans_are_optimal_and_their_potentials_prove_it(seed: int) -> None:
    draws = np.random.default_rng(seed)
    atoms, points = int(draws.integers(1, 6)), int(draws.integers(1, 20))
    costs = 10 * draws.random((atoms, points))
    costs = costs.round() if seed % 3 == 0 else costs  # with ties
    weights = draws.dirichlet(np.ones(atoms)) if seed % 2 else np.full(atoms, 1 / atoms)
    plan = transport(costs, weights, draws.normal(size=atoms) if seed % 4 == 0 else None)
    assert (plan.flow >= 0).all()
    np.testing.assert_allclose(plan.flow.sum(1), weights, atol=1e-11)
    np.testing.assert_allclose(plan.flow.sum(0), 1 / points, atol=1e-11)
    best = program(costs, weights)[0]
    assert plan.cost(costs) == pytest.approx(best, abs=1e-9)
    dual = weights @ plan.potentials + (costs - plan.potentials[:, None]).min(0).mean()
    assert dual == pytest.approx(best, abs=1e-9)


def test_an_atom_without_weight_carries_nothing() -> None:
    plan = transport(np.array([[0.0, 0.0], [1.0, 2.0]]), np.array([0.0, 1.0]))
    assert plan.flow.tolist() == [[0.0, 0.0], [0.5, 0.5]]
    atoms = free_support(torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [0.5]]), torch.tensor([0.0, 1.0]))
    assert atoms.flatten().tolist() == [5.0, 1.0]


def test_atoms_move_as_in_a_plain_loop_of_linear_programs() -> None:
    draws = np.random.default_rng(5)
    points, start = draws.normal(size=(11, 3)), draws.normal(size=(3, 3))
    weights = np.array([0.5, 0.3, 0.2])
    atoms = start
    for _ in range(4):
        atoms = program(squared(atoms, points), weights)[1] @ points / weights[:, None]
    found = free_support(*map(torch.from_numpy, (points, start, weights)), rounds=4, tolerance=0.0)
    np.testing.assert_allclose(found.numpy(), atoms, atol=1e-9)


def test_atoms_of_equal_weight_are_means_of_equally_many_points() -> None:
    points = torch.randn(6, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    atoms = free_support(points, torch.randn(3, 2, generator=torch.Generator().manual_seed(3)))
    means = {
        tuple(points[list(rows)].mean(0).mul(1e6).round().tolist())
        for rows in itertools.combinations(range(6), 2)
    }
    assert all(tuple(atom.mul(1e6).round().tolist()) in means for atom in atoms)
    torch.testing.assert_close(atoms.mean(0), points.mean(0))


def test_as_many_atoms_as_points_are_the_points() -> None:
    points = torch.tensor([[3.0, 0.0], [0.0, 1.0], [-2.0, 5.0]])
    atoms = free_support(points, torch.zeros(3, 2))
    assert sorted(atoms.tolist()) == sorted(points.tolist())


def test_weights_follow_mirror_descent_in_a_plain_loop_of_linear_programs() -> None:
    draws = np.random.default_rng(8)
    points, atoms = draws.normal(size=(11, 2)), draws.normal(size=(3, 2))
    costs = squared(atoms, points)
    costs /= costs.max()
    tried, weights = [], np.full(3, 1 / 3)
    for _ in range(6):
        value, _, dual = program(costs, weights)
        tried.append((value, weights))
        weights = weights * np.exp(-2.0 * dual)
        weights = weights / weights.sum()
    found = fixed_support(torch.from_numpy(points), torch.from_numpy(atoms), rounds=6, step=2.0)
    best = min(tried, key=lambda each: each[0])[1]
    assert best is not tried[0][1]
    np.testing.assert_allclose(found.numpy(), best, atol=1e-9)


def test_the_best_weights_of_fixed_atoms_count_the_points_that_are_nearest() -> None:
    points = torch.tensor([[0.0], [0.2], [0.1], [5.0], [9.0], [9.3], [8.8], [9.1]])
    atoms = torch.tensor([[0.0], [5.5], [9.0]])
    weights = fixed_support(points, atoms, step=0.1)
    np.testing.assert_allclose(weights.numpy(), [3 / 8, 1 / 8, 4 / 8], atol=0.03)
    assert weights.sum().item() == pytest.approx(1)


def test_weights_and_atoms_take_turns_and_atoms_go_part_of_the_way() -> None:
    stream = torch.Generator().manual_seed(6)
    points, start = torch.randn(11, 4, generator=stream), torch.randn(3, 4, generator=stream)
    first = fixed_support(points, start)
    moved = 0.75 * start.double() + 0.25 * free_support(points, start, first)
    second = fixed_support(points, moved)
    expected = 0.75 * moved + 0.25 * free_support(points, moved, second)
    atoms, weights = weighted_barycentre(points, start, rounds=2, damping=0.25)
    torch.testing.assert_close(atoms, expected)
    torch.testing.assert_close(weights, second)
    assert (first - second).abs().max() > 1e-3
