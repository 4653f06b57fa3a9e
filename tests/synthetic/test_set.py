"""`SyntheticSet`: its images in both spaces."""

from __future__ import annotations

import pytest
import torch

from dsdistill.data.preprocess import ZCA, Preprocess
from dsdistill.synthetic.distilled import DistilledDataset, DistilledSet
from dsdistill.synthetic.multi_formation import Mode, MultiFormation, decode
from dsdistill.synthetic.set import Space, SyntheticSet
from tests.helpers.clusters import PREPROCESS, TWO, start


def test_a_network_sees_the_same_from_either_space() -> None:
    pixels = start("real", 2)
    in_unit = SyntheticSet(pixels, (2, 2), "unit", PREPROCESS)
    in_network = SyntheticSet(PREPROCESS(pixels), (2, 2), "network", PREPROCESS)
    for classes in (torch.tensor([0, 1]), torch.tensor([1])):
        seen = in_unit.of(classes)
        assert seen.shape == (2 * len(classes), 1, 4, 4)
        torch.testing.assert_close(seen, in_network.of(classes))
    torch.testing.assert_close(in_unit.of(torch.tensor([1])), PREPROCESS(pixels[2:]))


def whitening(size: int) -> ZCA:
    shape = (40, 1, size, size)
    return ZCA.fit(
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    )


@pytest.mark.parametrize("preprocess", [PREPROCESS, whitening(5)], ids=["standardise", "zca"])
@pytest.mark.parametrize("space", ["network", "unit"])
@pytest.mark.parametrize("mode", ["single", "multi", "bound"])
def test_the_file_decodes_into_what_networks_saw(preprocess: Preprocess, space: Space, mode: Mode) -> None:
    multi_formation = MultiFormation(factor=3, mode=mode, bound=13)  # 5 pixels a side: padded
    pixels = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    learned = pixels if space == "unit" else preprocess(pixels)
    set_module = SyntheticSet(learned, (3, 3), space, preprocess, multi_formation)
    both = set_module.of(torch.tensor([0, 1]))
    decoded = multi_formation.decoded_count(3)
    assert set_module.decoded_counts == (decoded, decoded)
    assert both.shape == (2 * decoded, 1, 5, 5)
    expected = preprocess(decode(pixels.view(2, 3, 1, 5, 5), multi_formation).flatten(0, 1))
    torch.testing.assert_close(both, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(set_module.of(torch.tensor([1])), both[decoded:])

    made = DistilledSet(
        set_module.unit_images(), set_module.labels, ("a", "b"), preprocess, None, multi_formation
    )
    read = DistilledDataset(made)
    torch.testing.assert_close(read.images, both.detach())
    assert torch.equal(read.labels, torch.arange(2).repeat_interleave(decoded))

    both.square().sum().backward()
    assert set_module.images.grad is not None
    assert set_module.images.grad.isfinite().all()
    assert (set_module.images.grad != 0).all()


def test_preprocessing_follows_the_images() -> None:
    set_module = SyntheticSet(PREPROCESS(start("real")), (3, 3), "network", PREPROCESS, TWO)
    single = set_module.of(torch.tensor([0, 1])).detach()
    double = set_module.double().of(torch.tensor([0, 1])).detach()
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single)
    assert set(set_module.state_dict()) == {"images", "labels"}


def test_clamping_unit_pixels() -> None:
    pixels = torch.linspace(-0.5, 1.5, 32).view(2, 1, 4, 4)
    set_module = SyntheticSet(pixels.clone(), (1, 1), "unit", PREPROCESS)
    set_module.clamp_()
    assert torch.equal(set_module.images.detach(), pixels.clamp(0, 1))
    assert set_module.images.requires_grad
    with pytest.raises(ValueError, match="network space"):
        SyntheticSet(pixels, (1, 1), "network", PREPROCESS).clamp_()
