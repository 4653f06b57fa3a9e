"""CutMix: what is drawn against its distribution, what is applied against plain slicing."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.augment.mix import CutMix, Mix, Mixup, draw_lambda
from dsdistill.errors import UserError
from dsdistill.seeding import generator

SIZE, CLASSES = 9, 4


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def always(count: int, seed: int, size: int = SIZE) -> Mix:
    return CutMix(probability=1).draw(count, size, rng(seed))


def pixels(count: int, channels: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, channels, SIZE, SIZE, generator=rng(99), dtype=dtype)


def sliced(images: Tensor, mix: Mix) -> Tensor:
    mixed = images.clone()
    for i, (rows, columns, j) in enumerate(zip(mix.rows, mix.columns, mix.partner, strict=True)):
        mixed[i, :, rows[0] : rows[1], columns[0] : columns[1]] = images[
            j, :, rows[0] : rows[1], columns[0] : columns[1]
        ]
    return mixed


# Drawing ----------------------------------------------------------------------------------------------------


def test_all_images_of_a_batch_share_a_box_inside_the_image() -> None:
    boxes = set()
    for seed in range(50):
        mix = always(7, seed)
        assert (mix.rows == mix.rows[0]).all()
        assert (mix.columns == mix.columns[0]).all()
        assert sorted(mix.partner.tolist()) == list(range(7))
        top, bottom, left, right = [*mix.rows[0].tolist(), *mix.columns[0].tolist()]
        assert 0 <= top <= bottom <= SIZE
        assert 0 <= left <= right <= SIZE
        boxes.add((top, bottom, left, right))
    assert len(boxes) > 30


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 9])
def test_kept_share_has_the_published_distribution(size: int) -> None:
    """Its mean over boxes, enumerated: P(side = s) = P(s ≤ H·√u < s + 1) = (2s + 1) / H² for uniform u."""

    def mean_length(half: int) -> float:
        return sum(min(c + half, size) - max(c - half, 0) for c in range(size)) / size

    area = sum((2 * side + 1) / size**2 * mean_length(side // 2) ** 2 for side in range(size))
    kept = torch.tensor([always(1, seed, size).own_share.item() for seed in range(4000)])
    assert kept.mean().item() == pytest.approx(
        1 - area / size**2, abs=4 * kept.std().item() / math.sqrt(4000)
    )


@pytest.mark.parametrize("beta", [0.2, 1.0, 4.0])
def test_share_is_beta_distributed(beta: float) -> None:
    source, cutmix = rng(), CutMix(beta=beta)
    shares = torch.tensor([draw_lambda(cutmix.beta, source) for _ in range(4000)], dtype=torch.float64)
    variance = 1 / (4 * (2 * beta + 1))
    assert ((shares >= 0) & (shares <= 1)).all()
    assert shares.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(variance / 4000))
    assert shares.var().item() == pytest.approx(variance, rel=0.1)


def test_probability_of_mixing() -> None:
    cutmix = CutMix(probability=0.3)
    mixed = [
        not torch.equal(cutmix.draw(64, 32, rng(seed)).partner, torch.arange(64)) for seed in range(1000)
    ]
    assert sum(mixed) / 1000 == pytest.approx(0.3, abs=0.06)
    assert torch.equal(
        CutMix(probability=0).draw(3, SIZE, rng()).own_share, torch.ones(3, dtype=torch.float64)
    )


def test_draws_depend_on_the_generator_alone() -> None:
    for beta in (1.0, 0.5):
        before = torch.get_rng_state()
        first, again = (
            CutMix(probability=1, beta=beta).draw(5, SIZE, generator(3, "student-mix", 0, 1))
            for _ in range(2)
        )
        assert torch.equal(torch.get_rng_state(), before)
        for name in ("partner", "rows", "columns"):
            assert torch.equal(getattr(first, name), getattr(again, name))


# Applying ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_boxes_come_from_the_partner(dtype: torch.dtype) -> None:
    images = pixels(6, dtype=dtype)
    before = images.clone()
    for seed in range(10):
        mix = always(6, seed)
        assert torch.equal(mix.images(images), sliced(images, mix))
        assert torch.equal(images, before)


def test_kept_is_the_share_of_unchanged_pixels() -> None:
    zeros_and_ones = torch.stack([torch.zeros(1, SIZE, SIZE), torch.ones(1, SIZE, SIZE)]).double()
    mixes = [mix for seed in range(20) if (mix := always(2, seed)).partner.tolist() == [1, 0]]
    for mix in mixes:
        assert mix.images(zeros_and_ones)[0].mean().item() == pytest.approx(1 - mix.own_share[0].item())
    assert len({mix.own_share[0].item() for mix in mixes}) > 3


def test_gradient_reaches_both_images() -> None:
    images, mix = pixels(5).requires_grad_(), always(5, 2)
    cotangent = torch.randn(images.shape, generator=rng(1), dtype=images.dtype)
    ours, naive = (
        torch.autograd.grad((mixed * cotangent).sum(), images)[0]
        for mixed in (mix.images(images), sliced(images, mix))
    )
    assert torch.equal(ours, naive)


def test_targets_give_the_published_loss() -> None:
    labels = torch.tensor([0, 3, 1, 1, 2, 0])
    logits = torch.randn(6, CLASSES, generator=rng(5), dtype=torch.float64)
    hard = F.one_hot(labels, CLASSES).double()
    for seed in range(10):
        mix = always(6, seed)
        kept = mix.own_share[0]
        published = kept * F.cross_entropy(logits, labels)
        published = published + (1 - kept) * F.cross_entropy(logits, labels[mix.partner])
        torch.testing.assert_close(F.cross_entropy(logits, mix.targets(hard)), published, rtol=0, atol=1e-14)
        torch.testing.assert_close(mix.targets(hard).sum(1), torch.ones(6, dtype=torch.float64))
        assert mix.targets(hard.float()).dtype == torch.float32


def test_nothing_mixed_returns_what_came() -> None:
    images, targets, mix = pixels(3), torch.eye(3), CutMix(probability=0).draw(3, SIZE, rng())
    assert mix.images(images) is images
    assert mix.targets(targets) is targets


def test_joined_batches_keep_to_themselves() -> None:
    batches, targets = pixels(8).split([3, 3, 2]), torch.rand(8, CLASSES, generator=rng(4)).split([3, 3, 2])
    mixes = [always(3, 0), CutMix(probability=0).draw(3, SIZE, rng()), always(2, 1)]
    joined = Mix.cat(mixes)
    apart = [mix.images(x) for mix, x in zip(mixes, batches, strict=True)]
    assert torch.equal(joined.images(torch.cat(batches)), torch.cat(apart))
    apart = [mix.targets(y) for mix, y in zip(mixes, targets, strict=True)]
    assert torch.equal(joined.targets(torch.cat(targets)), torch.cat(apart))
    assert torch.equal(joined.own_share, torch.cat([mix.own_share for mix in mixes]))


# Mixup ------------------------------------------------------------------------------------------------------


def blend(count: int, seed: int, **options: float) -> Mix:
    return Mixup(**options).draw(count, SIZE, rng(seed))


def test_mixup_blends_images_and_targets_alike() -> None:
    images, targets = pixels(6), torch.rand(6, CLASSES, generator=rng(4), dtype=torch.float64)
    for seed in range(10):
        mix = blend(6, seed, beta=0.8)
        assert mix.weight is not None
        share = float(mix.weight[0])
        assert mix.weight.tolist() == [share] * 6
        assert sorted(mix.partner.tolist()) == list(range(6))
        for whole, mixed in ((images, mix.images(images)), (targets, mix.targets(targets))):
            expected = torch.stack(
                [share * whole[i] + (1 - share) * whole[j] for i, j in enumerate(mix.partner.tolist())]
            )
            torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-14)


def test_the_share_of_mixup_has_a_beta_distribution() -> None:
    for beta in (0.8, 1.0, 5.0):
        shares = torch.stack([blend(2, seed, beta=beta).own_share[0] for seed in range(2000)])
        variance = 1 / (4 * (2 * beta + 1))
        assert abs(float(shares.mean()) - 0.5) < 4 * math.sqrt(variance / 2000)
        assert float(shares.var()) == pytest.approx(variance, rel=0.1)


def test_mixup_takes_its_probability_per_batch() -> None:
    mixes = [blend(4, seed, probability=0.3) for seed in range(1000)]
    assert 0.25 < sum(bool((mix.own_share < 1).any()) for mix in mixes) / 1000 < 0.35
    images = pixels(4)
    unmixed = next(mix for mix in mixes if (mix.own_share == 1).all())
    assert unmixed.images(images) is images


def test_joined_blends_keep_to_themselves() -> None:
    batches = pixels(8).split([3, 3, 2])
    mixes = [blend(3, 0), blend(3, 1, probability=0.0), blend(2, 2)]
    apart = [mix.images(x) for mix, x in zip(mixes, batches, strict=True)]
    assert torch.equal(Mix.cat(mixes).images(torch.cat(batches)), torch.cat(apart))
    with pytest.raises(UserError, match="mixes with boxes and mixes that blend cannot be joined"):
        Mix.cat([blend(3, 0), always(3, 0)])


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(UserError, match="the probability of mixup must lie between 0 and 1, got -1"):
        Mixup(probability=-1)
    with pytest.raises(UserError, match="the beta of mixup must be positive and finite, got 0"):
        Mixup(beta=0)
    for options, message in [
        ({"probability": 1.5}, "probability of CutMix must lie between 0 and 1, got 1.5"),
        ({"beta": 0.0}, "beta of CutMix must be positive"),
        ({"beta": math.inf}, "beta of CutMix must be positive"),
        ({"probability": math.nan}, "got nan"),
    ]:
        with pytest.raises(UserError, match=message):
            CutMix(**options)
    with pytest.raises(UserError, match="mix of 3 images of 9×9 does not fit"):
        always(3, 0).images(pixels(4))
    with pytest.raises(UserError, match="does not fit"):
        always(3, 0, size=8).images(pixels(3))
    with pytest.raises(UserError, match="one size"):
        Mix.cat([always(3, 0, size=8), always(3, 0)])
    with pytest.raises(UserError, match="one size"):
        Mix.cat([])
