"""What benchmarks compare with computes the same, and what the real runs are told is understood."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import real_runs
from benchmarks.accuracy import gains, over_seeds
from benchmarks.real_runs import SUITES
from dsdistill.data import catalog
from dsdistill.errors import UserError
from dsdistill.evaluation.protocol import load_protocol
from dsdistill.networks import build
from dsdistill.seeding import fenced
from tests.cli_helpers import refused
from tests.reference.ncfm import characteristic_discrepancy, plain_class_loss


def test_plain_ncfm_computes_the_discrepancy() -> None:
    with fenced(0, "test"):
        network = build("convnet2-w6", 1, 12, 3).double().requires_grad_(False)
        real, fake = (torch.randn(n, 1, 12, 12, dtype=torch.float64) for n in (5, 3))
        frequencies = torch.randn(7, network.feature_dim, dtype=torch.float64)
    features = [torch.nn.functional.normalize(network.embed(x), dim=1) for x in (real, fake)]
    expected = characteristic_discrepancy([features[0]], [features[1]], [frequencies])
    torch.testing.assert_close(plain_class_loss(network, real, fake, frequencies), 300 * expected[0])


@pytest.mark.parametrize("suite", SUITES)
def test_real_runs_are_understood(
    suite: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(config: Any, split: str, *_: Any) -> None:
        raise UserError(f"reading {config.name}, {split}")

    monkeypatch.setattr(catalog, "load", load)
    monkeypatch.setattr(real_runs, "RUNS", tmp_path)
    cells = SUITES[suite]()
    made = [step for cell in cells for step in cell.steps()]
    assert len({file for _, file in made}) == len(made)
    for command, _ in made + [cell.experts.step for cell in cells if cell.experts]:
        said = refused(capsys, *shlex.split(command))
        data = "digits" if suite == "adversary" else "fashion-mnist"
        assert said.endswith(f": reading {data}, train\n") or "no file at" in said, command
    for cell in cells:
        for options in cell.evaluations.values():
            load_protocol(options.split()[1])


def test_gains_pair_runs_by_their_seed() -> None:
    values = {"true": (3.0, 5.0), "false": (2.0, 2.5)}
    rows = [
        {"cell": f"fyi-flip-{flip}-seed{seed}", "evaluation": "fyi", "set": "distilled", "mean": mean}
        for flip, means in values.items()
        for seed, mean in enumerate(means)
    ]
    rows.append({"cell": "other", "evaluation": "fyi", "set": "distilled", "mean": 1.0})
    seeds = over_seeds(rows)
    assert {name: gains(name, seeds) for name in seeds} == {
        "fyi-flip-true, fyi, distilled": [1.0, 2.5],
        "fyi-flip-false, fyi, distilled": [],
    }
