"""How hard images are for several teachers: the mean over networks, from files that say so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.storage import expert_writer
from dsdistill.supply.base import NetworkRequest
from dsdistill.supply.teachers import Teachers, TeachersConfig
from tests.helpers.expert_files import FINGERPRINT, NETWORK, TASK, metadata, states, training, written
from tests.helpers.teachers import committee

SCORES = torch.tensor([[0.25, 1.0, 0.5, 0.0], [0.75, 0.5, 0.0, 1.0], [1.25, 0.0, 0.25, 0.5]])


def scored(path: Path, *experts: int) -> Path:
    """Write experts with their scores of four images."""
    pack = metadata().layout.pack
    trained = ((training(expert), map(pack, states(expert))) for expert in experts)
    scores = [SCORES[expert] for expert in experts]
    expert_writer.write(path, metadata(), trained, len(experts), scores)
    return path


def teachers(path: str) -> Teachers:
    request = NetworkRequest(NETWORK, TASK, torch.device("cpu"), 0, FINGERPRINT)
    return TeachersConfig(path=path).build(request)


def test_it_is_the_mean_over_all_networks_of_all_files(tmp_path: Path) -> None:
    two, one = scored(tmp_path / "two.h5", 0, 1), scored(tmp_path / "one.h5", 2)
    assert torch.equal(teachers(str(two)).difficulty(), SCORES[:2].mean(0))
    found = teachers(f"{two},{one}").difficulty()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, SCORES.mean(0))
    torch.testing.assert_close(teachers(f"{two}#1,{one}").difficulty(), SCORES[1:].mean(0))


def test_a_network_at_two_epochs_counts_once(tmp_path: Path) -> None:
    two = scored(tmp_path / "two.h5", 0, 1)
    assert torch.equal(teachers(f"{two}#0@2,{two}#0@9,{two}#1").difficulty(), SCORES[:2].mean(0))


def test_files_without_scores_are_refused_with_the_remedy(tmp_path: Path) -> None:
    two, plain = scored(tmp_path / "two.h5", 0, 1), written(tmp_path / "plain.h5")
    with pytest.raises(UserError, match=r"plain.h5 does not hold how hard .* --recipe el2n") as caught:
        teachers(f"{two},{plain}").difficulty()
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"does not say how hard each training image was: .* --recipe el2n"):
        Teachers(committee(1).teachers).difficulty()
