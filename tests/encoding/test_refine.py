"""Refining: rounding passes the gradient on, and features come nearer to those of the images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsdistill.encoding import refine
from dsdistill.encoding.refine import refined, rounded
from dsdistill.networks import Network, build_network
from dsdistill.seeding import forked
from dsdistill.synthetic.coded import CodedPixels, Coding, encode


def images() -> Tensor:
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network(step: int) -> Network:
    with forked(0, "network"):  # the same one in every step
        return build_network("convnet2-w8", 1, 8, 10).requires_grad_(False).eval()


def test_rounding_has_the_gradient_of_the_identity() -> None:
    levels, weights = torch.tensor([-0.4, 0.6, 1.4, 3.4], requires_grad=True), torch.arange(4.0)
    found = rounded(levels, 2)
    assert found.tolist() == [0, 1, 1, 3]
    (found * weights).sum().backward()
    torch.testing.assert_close(levels.grad, weights)


def loss(coded: CodedPixels, steps: range) -> float:
    pairs = [(network(step).embed(coded.decode()), network(step).embed(images())) for step in steps]
    return sum(float((one - other).square().sum()) for one, other in pairs)


def test_refined_codes_keep_more_of_the_features() -> None:
    done: list[int] = []
    plain = encode(images(), Coding(2, 4, 3))
    found = refined(plain, images(), network, lambda unit: unit, 80, tick=done.append)

    assert loss(found, range(-4, 0)) < loss(plain, range(-4, 0))
    assert done == list(range(1, 81))
    assert torch.equal(found.scales, plain.scales)
    again = refined(plain, images(), network, lambda unit: unit, 80)
    assert torch.equal(found.codes, again.codes)


def test_codes_that_do_not_fit_are_not_taken() -> None:
    plain = encode(images(), Coding(2, 4, 3))
    found = refined(plain, images(), network, lambda unit: unit, 80, fits=lambda coded: False)
    assert found is plain


def test_a_patch_of_one_value_is_seen_as_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moving its codes changes nothing, so that Adam is given no reason to."""
    dark = images()
    dark[:, :, :4] = 0
    plain = encode(dark, Coding(2, 4, 0))
    seen: list[Tensor] = []

    def watched(unit: Tensor) -> Tensor:
        seen.append(unit.detach())
        return unit

    refined(plain, dark, network, watched, 20)
    assert all(bool((unit[:, :, :4] == 0).all()) for unit in seen)


def test_steps_that_lead_away_are_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refine, "RATE", 50.0)
    plain = encode(images(), Coding(2, 4, 0))
    assert torch.equal(refined(plain, images(), network, lambda unit: unit, 8).codes, plain.codes)


def test_no_step_leaves_the_codes_as_they_are() -> None:
    plain = encode(images(), Coding(2, 4, 3))
    assert torch.equal(refined(plain, images(), network, lambda unit: unit, 0).codes, plain.codes)
