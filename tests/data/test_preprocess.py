"""Standardising and whitening against their formulas in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dsdistill.data import mapped
from dsdistill.data.preprocess import ZCA, Preprocess, Standardise, from_state
from dsdistill.errors import UserError
from dsdistill.runtime.allocations import peak_of


def pictures(n: int = 60, channels: int = 3, size: int = 4) -> torch.Tensor:
    """Correlated uint8 images, so that whitening has something to do."""
    g = torch.Generator().manual_seed(0)
    base = torch.randint(0, 200, (n, 1, 1, size), generator=g)
    return (base + torch.randint(0, 56, (n, channels, size, size), generator=g)).to(torch.uint8)


def fitted(kind: str) -> Preprocess:
    return Standardise.fit(pictures()) if kind == "standardise" else ZCA.fit(pictures())


def test_standardise_fits_the_mean_and_std_of_every_channel() -> None:
    images = pictures()
    unit = images.double() / 255
    fit = Standardise.fit(images)
    torch.testing.assert_close(fit.mean.double(), unit.mean((0, 2, 3)), atol=1e-7, rtol=0)
    torch.testing.assert_close(fit.std.double(), unit.std((0, 2, 3), correction=0), atol=1e-7, rtol=0)
    x = fit(unit.float())
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_standardise_survives_a_constant_channel() -> None:
    fit = Standardise.fit(torch.full((3, 1, 2, 2), 51, dtype=torch.uint8))
    assert torch.equal(fit(torch.full((1, 1, 2, 2), 0.2)), torch.zeros(1, 1, 2, 2))


def test_zca_is_the_symmetric_whitening_of_the_training_covariance() -> None:
    images = pictures()
    unit = images.double().flatten(1) / 255
    mean = unit.mean(0)
    values, vectors = torch.linalg.eigh((unit - mean).T @ (unit - mean) / (len(unit) - 1))
    matrix = vectors @ torch.diag((values + 0.1) ** -0.5) @ vectors.T
    expected = ((unit - mean) @ matrix).view(images.shape)
    whitened = ZCA.fit(images)(images.float() / 255)
    torch.testing.assert_close(whitened.double(), expected, atol=2e-5, rtol=0)


def test_zca_whitens_the_covariance_up_to_eps() -> None:
    images = pictures()
    x = ZCA.fit(images)(images.float() / 255).flatten(1).double()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.T))
    original = torch.linalg.eigvalsh(torch.cov((images.double() / 255).flatten(1).T))
    torch.testing.assert_close(eigenvalues, original / (original + 0.1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["standardise", "zca"])
def test_inverse_undoes_the_map(kind: str) -> None:
    preprocess, unit = fitted(kind), pictures().float() / 255
    torch.testing.assert_close(preprocess.inverse(preprocess(unit)), unit, atol=1e-5, rtol=0)
    double = preprocess.to(dtype=torch.float64)
    torch.testing.assert_close(double.inverse(double(unit.double())), unit.double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ["standardise", "zca"])
def test_gradients_flow_both_ways(kind: str) -> None:
    preprocess = fitted(kind).to(dtype=torch.float64)
    x = (pictures(2).double() / 255).requires_grad_()
    assert torch.autograd.gradcheck(preprocess, (x,))
    assert torch.autograd.gradcheck(preprocess.inverse, (x,))


@pytest.mark.parametrize("kind", ["standardise", "zca"])
def test_state_rebuilds_the_same_map(kind: str) -> None:
    preprocess, unit = fitted(kind), pictures(2).float() / 255
    again = from_state(preprocess.kind, preprocess.state())
    assert torch.equal(again(unit), preprocess(unit))
    assert torch.equal(again.inverse(unit), preprocess.inverse(unit))
    assert preprocess.state().keys() == again.state().keys()


def test_zca_state_keeps_eps_exactly() -> None:
    again = from_state("zca", ZCA.fit(pictures()).state())
    assert isinstance(again, ZCA)
    assert again.eps == 0.1
    assert again.matrix.dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "state", "message"),
    [
        ("standardize", {}, "did you mean 'standardise'"),
        ("zca", {"mean": torch.zeros(4), "eps": torch.tensor(0.1)}, "lacks matrix"),
        ("standardise", {"mean": torch.zeros(3), "std": torch.zeros(3)}, "positive std"),
        ("standardise", {"mean": torch.full((1,), torch.nan), "std": torch.ones(1)}, "not finite"),
        ("zca", {"mean": torch.zeros(4), "matrix": torch.eye(3), "eps": torch.tensor(0.1)}, "does not fit"),
    ],
)
def test_damaged_state_is_refused(kind: str, state: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_state(kind, state)


def test_zca_refuses_what_it_cannot_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="12675 values is too large"):
        ZCA.fit(torch.zeros(2, 3, 65, 65, dtype=torch.uint8))
    with pytest.raises(UserError, match="two training images"):
        ZCA.fit(pictures(1))
    monkeypatch.setattr("dsdistill.runtime.device.available_memory", lambda device: 100)
    with pytest.raises(UserError, match=r"zca of 48 values takes .* turn zca off"):
        ZCA.fit(pictures())


def test_zca_is_that_of_kornia_which_the_code_of_mtt_uses() -> None:
    from kornia.enhance import ZCAWhitening

    images = pictures(500)
    theirs = ZCAWhitening(dim=0, eps=0.1, unbiased=True).fit(images / 255)
    own = ZCA.fit(images)
    torch.testing.assert_close(own.mean, theirs.mean_vector.flatten(), atol=1e-6, rtol=0)
    torch.testing.assert_close(own.matrix, theirs.transform_matrix, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fit", [Standardise.fit, ZCA.fit])
def test_blocks_of_images_give_what_all_at_once_do(
    fit: Callable[..., Preprocess], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, reports = pictures(61), list[tuple[str, int, int]]()
    whole = fit(images).state()
    monkeypatch.setattr(mapped, "BLOCK", 4 * 48 * 7)
    parts = fit(images, progress=lambda *report: reports.append(report)).state()
    assert len(reports) > 4
    assert reports[-1][1:] == (61, 61)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("fit", [Standardise.fit, ZCA.fit])
def test_what_fitting_takes_does_not_grow_with_the_images(
    fit: Callable[..., Preprocess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "BLOCK", 1 << 14)
    image = pictures(1)

    def peak(count: int) -> int:
        images = image.repeat(count, 1, 1, 1)
        return peak_of(lambda: fit(images))

    assert peak(4000) - peak(500) < image.nbytes * 350  # a tenth of what the images are larger
