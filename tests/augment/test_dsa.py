from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dsdistill.augment.dsa import OPERATORS, Augmentation, Parameters
from dsdistill.errors import UserError
from tests.reference import dsa as reference

STRATEGY = "color_crop_cutout_flip_scale_rotate"


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(count: int, channels: int, size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, channels, size, size, generator=rng(99), dtype=dtype)


def expected(images: Tensor, parameters: Parameters, align_corners: bool) -> Tensor:
    rows = [
        reference.Row(
            operators={name for name, on in zip(OPERATORS, parameters.active[i].tolist(), strict=True) if on},
            mirrored=bool(parameters.flip[i]),
            brightness=parameters.brightness[i].item(),
            saturation=parameters.saturation[i].item(),
            contrast=parameters.contrast[i].item(),
            shift=tuple(parameters.shift[i].tolist()),
            centre=tuple(parameters.cutout[i].tolist()),
            scale=tuple(parameters.scale[i].tolist()),
            angle=parameters.angle[i].item(),
        )
        for i in range(len(images))
    ]
    return torch.stack(
        [reference.augment(x, row, align_corners) for x, row in zip(images, rows, strict=True)]
    )


def identical(a: Parameters, b: Parameters) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in vars(a) if name != "size")


def check(augmentation: Augmentation, images: Tensor, parameters: Parameters) -> None:
    """Values and pixel gradients agree with the reference, and the input is left alone."""
    images = images.requires_grad_()
    before = images.detach().clone()
    cotangent = torch.randn(images.shape, generator=rng(7), dtype=images.dtype)
    ours = augmentation(images, parameters)
    naive = expected(images, parameters, augmentation.align_corners)
    torch.testing.assert_close(ours, naive, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad((y * cotangent).sum(), images)[0] for y in (ours, naive)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 9), (1, 10)])
@pytest.mark.parametrize("operator", OPERATORS)
def test_each_operator_matches_the_reference(operator: str, channels: int, size: int) -> None:
    augmentation = Augmentation(operators=(operator,))
    parameters = augmentation.draw(4, size, rng(size), shared_operator=False)
    check(augmentation, pixels(4, channels, size), parameters)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rule", ["single", "idc", "fyi"])
def test_each_rule_matches_the_reference(rule: str, shared: bool, align_corners: bool) -> None:
    augmentation = Augmentation(rule=rule, align_corners=align_corners)
    for seed, channels in enumerate((1, 3)):
        parameters = augmentation.draw(12, 9, rng(seed), shared_operator=shared)
        check(augmentation, pixels(12, channels, 9), parameters)


@pytest.mark.parametrize("operator", ["scale", "rotate"])
def test_aligned_corners_match_the_reference_at_28(operator: str) -> None:
    augmentation = Augmentation(operators=(operator,), align_corners=True)
    check(augmentation, pixels(2, 1, 28), augmentation.draw(2, 28, rng(), shared_operator=False))


def test_cutout_boxes_at_every_published_offset() -> None:
    for size in (8, 9, 10):  # sides 4 and 5 at sizes 8, 9 and 10: both parities
        augmentation = Augmentation(operators=("cutout",))
        centres = torch.cartesian_prod(*[torch.arange(size + (augmentation.box(size) % 2 == 0))] * 2)
        parameters = augmentation.draw(len(centres), size, rng(), shared_operator=False)
        drawn = augmentation.draw(4000, size, rng(), shared_operator=False).cutout
        assert torch.equal(drawn.unique(dim=0), centres)
        parameters = replace(parameters, cutout=centres)
        images = pixels(len(centres), 1, size)
        assert torch.equal(augmentation(images, parameters), expected(images, parameters, False))


@pytest.mark.parametrize(("size", "shift", "box"), [(28, 4, 14), (32, 4, 16), (64, 8, 32), (128, 16, 64)])
def test_published_sizes(size: int, shift: int, box: int) -> None:
    augmentation = Augmentation()
    assert (augmentation.shift(size), augmentation.box(size)) == (shift, box)
    assert augmentation.shift(224) == 28


def test_scalars_fill_their_published_ranges() -> None:
    p = Augmentation().draw(20000, 32, rng(), shared_operator=False)
    ranges = [
        (p.brightness, -0.5, 0.5),
        (p.saturation, 0, 2),
        (p.contrast, 0.5, 1.5),
        (p.scale, 1 / 1.2, 1.2),
        (p.angle, -math.radians(15), math.radians(15)),
    ]
    for values, low, high in ranges:
        assert low <= values.min() < values.max() <= high
        assert values.min() == pytest.approx(low, abs=1e-3)
        assert values.max() == pytest.approx(high, abs=1e-3)
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02)
    for values, low, high in [(p.shift, -4, 4), (p.cutout, 0, 32)]:
        for axis in values.T:
            counts = torch.bincount(axis - low, minlength=high - low + 1)
            assert len(counts) == high - low + 1
            assert (counts / counts.sum() * len(counts) - 1).abs().max() < 0.2
    assert p.flip.double().mean() == pytest.approx(0.5, abs=0.02)
    every = torch.cat([p.brightness[:, None], p.shift, p.cutout, p.scale, p.angle[:, None]], 1)
    assert (torch.corrcoef(every.T) - torch.eye(8)).abs().max() < 0.03


def test_single_applies_one_operator_uniformly() -> None:
    augmentation = Augmentation.parse(STRATEGY)
    active = augmentation.draw(6000, 28, rng(), shared_operator=False).active
    assert (active.sum(1) == 1).all()
    assert ((active.sum(0) / 1000 - 1).abs() < 0.15).all()
    digits = augmentation.without("flip").draw(6000, 28, rng(), shared_operator=False).active
    assert not digits[:, OPERATORS.index("flip")].any()
    assert (digits.sum(1) == 1).all()


def test_idc_composes_in_stages() -> None:
    p = Augmentation(rule="idc").draw(3000, 32, rng(), shared_operator=False)
    assert p.active[:, [OPERATORS.index(x) for x in ("flip", "color", "cutout")]].all()
    spatial = p.active[:, [OPERATORS.index(x) for x in ("crop", "scale", "rotate")]]
    assert (spatial.sum(1) == 1).all()
    assert ((spatial.sum(0) / 1000 - 1).abs() < 0.15).all()
    listed = Augmentation.parse("color_crop_cutout", rule="idc").draw(5, 32, rng(), shared_operator=False)
    assert listed.active.tolist() == [[True, True, True, False, False, False]] * 5


def test_fyi_flips_beside_one_other_operator() -> None:
    p = Augmentation(rule="fyi").draw(3000, 32, rng(), shared_operator=False)
    assert p.rows("flip").all()
    assert (p.active.sum(1) == 2).all()
    digits = Augmentation(rule="fyi").without("flip").draw(50, 32, rng(), shared_operator=False)
    assert not digits.rows("flip").any()
    assert (digits.active.sum(1) == 1).all()


def test_shared_operator_keeps_scalars_per_row() -> None:
    chosen = set()
    for seed in range(40):
        p = Augmentation().draw(8, 32, rng(seed), shared_operator=True)
        assert (p.active == p.active[0]).all()
        assert len(p.angle.unique()) == 8
        chosen.add(p.active[0].int().argmax().item())
    assert chosen == set(range(6))


def test_scalars_depend_on_the_generator_only() -> None:
    first, again, other = (Augmentation().draw(5, 28, rng(seed), shared_operator=False) for seed in (3, 3, 4))
    assert identical(first, again)
    assert not torch.equal(first.angle, other.angle)
    for changed in (Augmentation(operators=("crop",)), Augmentation(rule="idc"), Augmentation(operators=())):
        for shared in (False, True):
            p = changed.draw(5, 28, rng(3), shared_operator=shared)
            for name in ("flip", "brightness", "saturation", "contrast", "shift", "cutout", "scale", "angle"):
                assert torch.equal(getattr(p, name), getattr(first, name))
    before = torch.get_rng_state()
    Augmentation().draw(5, 28, rng(3), shared_operator=False)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("rule", ["single", "idc", "fyi"])
def test_siamese_batches_meet_the_same_augmentation(rule: str) -> None:
    augmentation = Augmentation(rule=rule)
    per_class = augmentation.draw(10, 28, rng(5), shared_operator=False)
    real_labels, synthetic_labels = torch.arange(10).repeat_interleave(3), torch.arange(10)
    real, synthetic = pixels(30, 1, 28), pixels(10, 1, 28) + 1
    joined = augmentation(
        torch.cat([real, synthetic]), Parameters.cat([per_class[real_labels], per_class[synthetic_labels]])
    )
    apart = torch.cat(
        [augmentation(real, per_class[real_labels]), augmentation(synthetic, per_class[synthetic_labels])]
    )
    torch.testing.assert_close(joined, apart, rtol=0, atol=1e-14)
    same = real[:1].expand(30, -1, -1, -1)
    out = augmentation(same, per_class[real_labels]).view(10, 3, -1)
    torch.testing.assert_close(out, out[:, :1].expand_as(out), rtol=0, atol=1e-14)


def test_inactive_rows_are_bit_identical() -> None:
    images = pixels(60, 3, 32, torch.float32)
    for name in OPERATORS:
        parameters = Augmentation().draw(60, 32, rng(1), shared_operator=False)
        on = parameters.rows(name)
        only = torch.tensor([x == name for x in OPERATORS])
        parameters = replace(
            parameters, active=parameters.active & only, flip=torch.ones(60, dtype=torch.bool)
        )
        out = Augmentation()(images, parameters)
        assert 0 < on.sum() < 60
        assert torch.equal(out[~on], images[~on])
        assert not torch.equal(out[on], images[on])


def test_nothing_to_do_returns_the_images_themselves() -> None:
    images = pixels(3, 1, 8)
    for text in ("none", ""):
        identity = Augmentation.parse(text, rule="idc")
        assert identity.operators == ()
        assert identity(images, identity.draw(3, 8, rng(), shared_operator=False)) is images
    assert Augmentation()(images[:0], Augmentation().draw(0, 8, rng(), shared_operator=True)).shape[0] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_rounds_once_per_operator(dtype: torch.dtype) -> None:
    augmentation = Augmentation()
    parameters = augmentation.draw(24, 28, rng(2), shared_operator=False)
    images = pixels(24, 3, 28).to(dtype)
    out = augmentation(images.requires_grad_(), parameters)
    assert out.dtype == dtype
    exact = augmentation(images.detach().double(), parameters)
    torch.testing.assert_close(out.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-4)
    out.sum().backward()
    assert images.grad is not None
    assert images.grad.dtype == dtype


def test_autocast_changes_nothing() -> None:
    augmentation = Augmentation(rule="idc")
    parameters = augmentation.draw(6, 28, rng(), shared_operator=False)
    images = pixels(6, 1, 28, torch.float32)
    plain = augmentation(images, parameters)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augmentation(images, parameters), plain)
    with torch.inference_mode():
        assert torch.equal(augmentation(images.clone(), parameters), plain)


def test_parameters_slice_and_join() -> None:
    p = Augmentation().draw(7, 28, rng(), shared_operator=False)
    again = Parameters.cat([p[:3], p[torch.arange(3, 7)]]).to("cpu")
    assert (len(p[:3]), len(again), again.size) == (3, 7, 28)
    assert identical(p, again)
    with pytest.raises(UserError, match=r"one size, got \[28, 32\]"):
        Parameters.cat([p, Augmentation().draw(1, 32, rng(), shared_operator=False)])


def test_mistakes_get_a_sentence() -> None:
    with pytest.raises(UserError, match="unknown augmentation operator 'colour'; did you mean 'color'"):
        Augmentation.parse("colour_crop")
    with pytest.raises(UserError, match="unknown augmentation operator 'flips'; did you mean 'flip'"):
        Augmentation().without("flips")
    with pytest.raises(UserError, match="repeat in 'crop_crop'"):
        Augmentation.parse("crop_crop")
    with pytest.raises(UserError, match="unknown augmentation rule 'icd'; did you mean 'idc'"):
        Augmentation(rule="icd")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"scale must lie between 1 and 100, got 0\.8"):
        Augmentation.parse("scale", constants={"scale": 0.8})
    parameters = Augmentation().draw(3, 28, rng(), shared_operator=False)
    for shape in [(2, 1, 28, 28), (3, 1, 32, 32)]:
        with pytest.raises(UserError, match="do not fit a batch"):
            Augmentation()(torch.zeros(shape), parameters)


@pytest.mark.gpu
@pytest.mark.parametrize("rule", ["single", "idc", "fyi"])
def test_cuda_matches_cpu_without_waiting(rule: str) -> None:
    augmentation = Augmentation(rule=rule)
    parameters = augmentation.draw(64, 32, rng(), shared_operator=False)
    images = pixels(64, 3, 32)
    on_device = images.cuda().requires_grad_()
    augmentation(on_device, parameters).sum().backward()  # first use of the device may wait
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the mode is a prototype, said once the mode is on
        try:
            torch.cuda.set_sync_debug_mode("error")
            out = augmentation(on_device, parameters)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(out.cpu(), augmentation(images, parameters), rtol=0, atol=1e-12)
    torch.testing.assert_close(augmentation(on_device, parameters.to("cuda")), out, rtol=0, atol=1e-12)
