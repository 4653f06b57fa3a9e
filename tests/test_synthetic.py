"""What a run starts from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.synthetic import Init, Space, SyntheticSet, initialise

PREPROCESS = Standardise.of((0.4,), (0.2,))


def clusters(seed: int = 0) -> tuple[Task, RealDataset]:
    """Two classes of three clusters each, of 4, 5 and 6 noisy images around grey levels far apart.

    The first image of a cluster has the least noise, so that it is the nearest to the centre.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(2).repeat_interleave(15)
    levels = torch.tensor([20, 120, 220]).repeat_interleave(torch.tensor([4, 5, 6])).repeat(2)
    noise = torch.randint(8, 19, (30, 1, 4, 4), generator=generator)
    noise *= torch.randint(0, 2, noise.shape, generator=generator) * 2 - 1
    noise[labels.diff(prepend=labels[:1] - 1).bool() | levels.diff(prepend=levels[:1] - 1).bool()] //= 8
    images = (levels[:, None, None, None] + noise).to(torch.uint8)
    order = torch.randperm(30, generator=generator)
    real = RealDataset("clusters", "train", images[order], labels[order], ("one", "two"))
    return Task("clusters", real.classes, 1, 4, PREPROCESS, mirror=True), real


def start(init: Init, ipc: int = 3, space: Space = "unit", seed: int = 0) -> Tensor:
    return initialise(*clusters(), ipc, init, space, seed).images.detach()


def copied(images: Tensor, ipc: int) -> list[int]:
    """Return which real image each image is a copy of, after checking that it is one of its class."""
    _, real = clusters()
    unit = real.unit(slice(None))
    found = []
    for position, image in enumerate(images):
        (same,) = torch.nonzero((unit == image).flatten(1).all(1)).flatten().tolist()
        assert real.labels[same] == position // ipc
        found.append(same)
    return found


@pytest.mark.parametrize("init", ["real", "noise", "kmeans"])
@pytest.mark.parametrize("space", ["network", "unit"])
def test_shapes_labels_and_seeds(init: Init, space: Space) -> None:
    synthetic = initialise(*clusters(), 3, init, space, 0)
    assert synthetic.images.shape == (6, 1, 4, 4)
    assert synthetic.images.dtype == torch.float32
    assert synthetic.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(synthetic.images, start(init, 3, space))
    assert not torch.equal(synthetic.images, start(init, 3, space, seed=1))


@pytest.mark.parametrize("ipc", [1, 3, 15])
@pytest.mark.parametrize("init", ["real", "kmeans"])
def test_copies_are_distinct_images_of_the_class(init: Init, ipc: int) -> None:
    found = copied(start(init, ipc), ipc)
    assert len(set(found)) == 2 * ipc


def test_kmeans_takes_the_image_nearest_to_each_centre() -> None:
    _, real = clusters()
    chosen = copied(start("kmeans"), 3)
    unit = real.unit(slice(None)).flatten(1)
    cluster = (unit.mean(1) * 255 / 100).long()  # 0, 1 or 2 by grey level
    for label in (0, 1):
        expected = set()
        for level in range(3):
            members = torch.nonzero((real.labels == label) & (cluster == level)).flatten()
            distance = (unit[members] - unit[members].mean(0)).norm(dim=1)
            expected.add(int(members[distance.argmin()]))
        assert set(chosen[3 * label : 3 * label + 3]) == expected


def test_both_spaces_start_from_the_same_pixels() -> None:
    for init in ("real", "kmeans"):
        stored = initialise(*clusters(), 2, init, "network", 0)
        torch.testing.assert_close(stored.unit_images(), start(init, 2), atol=1e-6, rtol=0)
        torch.testing.assert_close(stored.images.detach(), PREPROCESS(start(init, 2)))


def test_noise_is_standard_normal_or_grey() -> None:
    task, real = clusters()
    task = Task("large", task.classes, 1, 64, PREPROCESS, mirror=True)
    normal = initialise(task, real, 10, "noise", "network", 0).images.detach()
    assert abs(float(normal.mean())) < 0.02
    assert abs(float(normal.std()) - 1) < 0.02
    grey = initialise(task, real, 10, "noise", "unit", 0).images.detach()
    assert 0 <= float(grey.min()) < float(grey.max()) <= 1
    assert abs(float(grey.mean()) - 0.5) < 0.02


def test_a_network_sees_the_same_from_either_space() -> None:
    pixels = start("real", 2)
    in_unit = SyntheticSet(pixels, 2, "unit", PREPROCESS)
    in_network = SyntheticSet(PREPROCESS(pixels), 2, "network", PREPROCESS)
    for classes in (torch.tensor([0, 1]), torch.tensor([1])):
        seen = in_unit.of(classes)
        assert seen.shape == (len(classes), 2, 1, 4, 4)
        torch.testing.assert_close(seen, in_network.of(classes))
    torch.testing.assert_close(in_unit.of(torch.tensor([1]))[0], PREPROCESS(pixels[2:]))


@pytest.mark.parametrize("init", ["real", "noise", "kmeans"])
def test_ipc_must_fit(init: Init) -> None:
    with pytest.raises(UserError, match="at least 1"):
        start(init, 0)
    with pytest.raises(UserError, match=r"15 training images of class 'one'"):
        start(init, 16)
