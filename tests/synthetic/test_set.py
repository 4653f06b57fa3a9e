"""`SyntheticSet`: its images in both spaces."""

from __future__ import annotations

import pytest
import torch

from dsdistill.data.preprocess import ZCA, Preprocess
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.distilled_dataset import DistilledDataset
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


@pytest.mark.parametrize("space", ["network", "unit"])
@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("flip", [False, True])
def test_classes_of_unequal_counts_are_those_of_sets_of_their_own(
    space: Space, factor: int, flip: bool
) -> None:
    multi_formation, counts = MultiFormation(factor=factor), (1, 3, 2)
    pixels = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = SyntheticSet(pixels, counts, space, PREPROCESS, multi_formation)
    alone = [
        SyntheticSet(part, (len(part),), space, PREPROCESS, multi_formation) for part in pixels.split(counts)
    ]
    for each in (whole, *alone):
        each.flip = flip
    assert whole.labels.tolist() == [0, 1, 1, 1, 2, 2]
    for classes in ([0, 1, 2], [1, 2], [0]):
        images, numbers = whole.matched(torch.tensor(classes))
        expected = [alone[label].matched(torch.tensor([0]))[0] for label in classes]
        torch.testing.assert_close(images, torch.cat(expected))
        assert (
            numbers == [len(each) for each in expected] == [whole.matched_counts[label] for label in classes]
        )
    made = DistilledSet(whole.unit_images(), whole.labels, ("a", "b", "c"), PREPROCESS, None, multi_formation)
    torch.testing.assert_close(DistilledDataset(made).images, whole.of(torch.arange(3)).detach())
    assert torch.equal(made.decode()[1], whole.origins())


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
    standardised = SyntheticSet(PREPROCESS(pixels), (1, 1), "network", PREPROCESS)
    standardised.clamp_()
    torch.testing.assert_close(standardised.unit_images(), pixels.clamp(0, 1))
    standardised.learn_residual()
    with pytest.raises(ValueError, match="not clamped"):
        standardised.clamp_()
