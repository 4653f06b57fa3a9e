"""What a committee answers, against its formulas in float64."""

from __future__ import annotations

import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.teachers import Committee
from dsdistill.teachers import committee as module
from tests.helpers.labels import committee, noise, teacher

IMAGES = noise(7, 3, 8, 8)


def answers(*seeds: int) -> list[torch.Tensor]:
    return [teacher(seed).network(IMAGES).double() for seed in seeds]


def test_one_answers_for_itself() -> None:
    assert torch.equal(committee(3).logits(IMAGES).double(), answers(3)[0])


@pytest.mark.parametrize("weights", [(), (2.0, 1.0, 1.0)])
def test_logits_are_averaged(weights: tuple[float, ...]) -> None:
    found = committee(0, 1, 2, weights=weights).logits(IMAGES)
    shares = torch.tensor(weights or (1.0, 1.0, 1.0), dtype=torch.float64)
    expected = sum(share * each for share, each in zip(shares / shares.sum(), answers(0, 1, 2), strict=True))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_probabilities_are_averaged_and_returned_as_their_logarithm() -> None:
    found = committee(0, 1, weights=(3.0, 1.0), mean="probabilities").logits(IMAGES)
    one, other = (each.softmax(1) for each in answers(0, 1))
    torch.testing.assert_close(found.double().exp(), 0.75 * one + 0.25 * other, rtol=1e-5, atol=1e-6)
    assert found.dtype == torch.float32


def test_a_probability_of_nothing_stays_finite() -> None:
    certain = teacher()
    certain.network.eval()

    class Certain(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1e3, 0.0, -1e3]]).expand(len(images), 3)

    object.__setattr__(certain, "network", Certain())
    found = Committee([certain], mean="probabilities").logits(IMAGES)
    assert found.isfinite().all()


def test_parts_of_a_batch_are_normalised_on_their_own() -> None:
    halves = Committee([teacher()], mode="train", parts=2)
    found, whole = halves.logits(IMAGES), Committee([teacher()], mode="train").logits(IMAGES)
    expected = torch.cat([teacher().network.train()(part) for part in (IMAGES[:4], IMAGES[4:])])
    torch.testing.assert_close(found, expected.detach())
    assert not torch.allclose(found, whole)
    assert halves.digest != Committee([teacher()], mode="train").digest


def test_train_normalises_by_the_batch_and_leaves_the_teacher_as_it_was() -> None:
    each = teacher()
    before = {name: value.clone() for name, value in each.network.state_dict().items()}
    found = Committee([each], mode="train").logits(IMAGES)
    after = each.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not each.network.training

    expected = teacher().network.train()(IMAGES)
    torch.testing.assert_close(found, expected.detach())
    assert (found - Committee([each]).logits(IMAGES)).abs().max() > 0.01


def test_chunks_change_nothing_in_eval_and_are_not_made_in_train(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {mode: committee(0, mode=mode).logits(IMAGES) for mode in ("eval", "train")}
    monkeypatch.setattr(module, "_CHUNK", 3)
    monkeypatch.setattr(module, "_FEWEST", 1)
    for mode, right in expected.items():
        torch.testing.assert_close(committee(0, mode=mode).logits(IMAGES), right)


@pytest.mark.parametrize(("size", "expected"), [(8, 256), (28, 20), (64, 4), (224, 4), (2, 512)])
def test_a_cpu_computes_as_many_images_as_its_caches_hold(size: int, expected: int) -> None:
    assert module._chunk(torch.empty(1000, 1, size, size)) == expected


def test_digests_tell_answers_apart() -> None:
    committees = [
        committee(0),
        committee(0, 1),
        committee(0, 1, weights=(2.0, 1.0)),
        committee(0, 1, mean="probabilities"),
        committee(0, mode="train"),
    ]
    assert len({each.digest for each in committees}) == 5
    assert committee(0, 1, weights=(4.0, 2.0)).digest == committees[2].digest
    assert committees[1].name == "teacher 0; teacher 1"


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -1.0), (0.0, 0.0)])
def test_weights_that_make_no_sense(weights: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="2 teachers need as many weights, from 0 and not all 0, not"):
        committee(0, 1, weights=weights)
    with pytest.raises(UserError, match="a committee needs at least one teacher"):
        Committee([])
