"""The images that a run starts from."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch
from torch import Tensor

from dsdistill.data.real import Task
from dsdistill.data.selection import k_means, mini_batch
from dsdistill.errors import UserError
from dsdistill.seeding import derive, generator
from dsdistill.synthetic import initial
from dsdistill.synthetic.initial import Init, initialise
from dsdistill.synthetic.multi_formation import MultiFormation, mosaic
from dsdistill.synthetic.set import Space
from dsdistill.synthetic.trained import TrainedNetworks
from tests.helpers.clusters import PREPROCESS, TWO, clusters, copied, start


@pytest.mark.parametrize("init", ["real", "noise", "kmeans", "mix"])
@pytest.mark.parametrize("space", ["network", "unit"])
def test_shapes_labels_and_seeds(init: Init, space: Space) -> None:
    set_module = initialise(*clusters(), 3, init, space, 0)
    assert set_module.images.shape == (6, 1, 4, 4)
    assert set_module.images.dtype == torch.float32
    assert set_module.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(set_module.images, start(init, 3, space))
    assert not torch.equal(set_module.images, start(init, 3, space, seed=1))


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
    assert abs(float(grey.std()) - 0.24) < 0.005  # 0.25, but for what is clamped


@pytest.mark.parametrize("init", ["real", "noise", "kmeans"])
def test_ipc_must_fit(init: Init) -> None:
    for ipc in (0, (2, 0)):
        with pytest.raises(UserError, match="at least 1"):
            initialise(*clusters(), ipc, init, "unit", 0)
    task, real = clusters()
    lacking = dataclasses.replace(real, labels=torch.zeros_like(real.labels))
    with pytest.raises(UserError, match="31 images, more than the 30 training images of clusters"):
        initialise(task, real, (16, 15), init, "unit", 0)
    with pytest.raises(UserError, match="'two' of clusters has no training images"):
        initialise(task, lacking, 1, init, "unit", 0)


@pytest.mark.parametrize("init", ["real", "noise", "kmeans", "mix"])
def test_classes_may_have_images_of_their_own_number(init: Init) -> None:
    made = initialise(*clusters(), (2, 5), init, "unit", 0)
    assert (made.counts, made.labels.tolist()) == ((2, 5), [0, 0, 1, 1, 1, 1, 1])
    if init == "real":  # each class draws from a stream of its own
        assert torch.equal(made.images[:2], start(init, 2)[:2])
        assert torch.equal(made.images[2:], start(init, 5)[5:])
    equal = initialise(*clusters(), (3, 3), init, "unit", 0)
    assert torch.equal(equal.images, start(init, 3))


@pytest.mark.parametrize("init", ["real", "kmeans"])
@pytest.mark.parametrize("space", ["network", "unit"])
def test_small_classes_repeat_their_images_with_a_little_noise(init: Init, space: Space) -> None:
    made = initialise(*clusters(), (25, 3), init, space, 0)
    assert made.counts == (25, 3)
    images = made.unit_images()
    torch.testing.assert_close(images[:15], start(init, 15)[:15], atol=1e-6, rtol=0)
    distances = images[15:25] - images[:10]
    assert len(images.unique(dim=0)) == len(images)  # equal ones would stay equal
    assert 0.02 < float(distances.std()) < 0.06
    assert (images.min() >= -1e-6).all()
    assert (images.max() <= 1 + 1e-6).all()
    other = initialise(*clusters(), (25, 3), init, space, 1)
    assert not torch.equal(made.images, other.images)


class Known(TrainedNetworks):
    """Trained networks of which every image of `clusters` gets the logits of a table [networks, 30, 2]."""

    def __init__(self, table: Tensor) -> None:
        self.table, self.count = table, len(table)
        self.asked: set[int] = set()
        self._seen = PREPROCESS(clusters()[1].unit(slice(None)))

    def logits(self, network: int, images: Tensor) -> Tensor:
        self.asked.add(network)
        rows = [int((self._seen == image).flatten(1).all(1).nonzero()) for image in images]
        return self.table[network, rows]


def knowing(*rows: list[int]) -> Known:
    """Make networks that classify these images correctly, and no others."""
    labels = clusters()[1].labels
    table = torch.zeros(len(rows), 30, 2)
    for network, right in enumerate(rows):
        table[network, torch.arange(30), 1 - labels] = 1.0
        table[network, right, labels[right]] = 2.0
    return Known(table)


def members(label: int) -> list[int]:
    return torch.nonzero(clusters()[1].labels == label).flatten().tolist()


def chosen(teacher: Known, init: Init, ipc: int, seed: int = 0) -> list[set[int]]:
    """Return which real images of each class a set starts from; none is taken twice."""
    made = initialise(*clusters(), ipc, init, "network", seed, teacher=teacher)
    images = initialise(*clusters(), ipc, init, "unit", seed, teacher=teacher).images.detach()
    torch.testing.assert_close(made.images.detach(), PREPROCESS(images))
    found = copied(images, ipc)
    assert len(set(found)) == len(found)
    return [set(found[:ipc]), set(found[ipc:])]


@pytest.mark.parametrize("part", [256, 4])
def test_correct_takes_what_a_network_knows_then_what_the_next_does(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial, "_CHUNK", part)
    one, two = members(0), members(1)
    teacher = knowing(one[2:6] + two, one[4:9])
    for seed in range(5):
        few, many, more, most = (chosen(teacher, "correct", ipc, seed) for ipc in (3, 4, 6, 12))
        assert few[0] < set(one[2:6])
        assert many[0] == set(one[2:6])
        assert many[0] < more[0] < set(one[2:9])
        assert set(one[2:9]) < most[0]
    assert teacher.asked == {0, 1}
    picks = {tuple(sorted(chosen(teacher, "correct", 2, seed)[0])) for seed in range(5)}
    assert len(picks) > 1


def test_correct_asks_no_more_networks_than_it_needs() -> None:
    teacher = knowing(members(0)[:5] + members(1)[:5], members(0))
    chosen(teacher, "correct", 5)
    assert teacher.asked == {0}


def test_correct_is_random_where_all_or_none_are_known() -> None:
    for teacher in (knowing(list(range(30))), knowing([], [])):
        for ipc in (3, 15):
            made = initialise(*clusters(), ipc, "correct", "unit", 0, teacher=teacher)
            assert torch.equal(made.images, start("real", ipc))


def test_representative_takes_the_image_nearest_to_each_centre_of_logits() -> None:
    _, real = clusters()
    table = torch.full((2, 30, 2), torch.nan)  # only the first network is asked
    group = torch.arange(30) % 3  # has nothing to do with the grey levels
    centres = torch.tensor([[9.0, 0.0], [0.0, 9.0], [-9.0, -9.0]])
    table[0] = centres[group] + torch.randn(30, 2, generator=generator(0, "logits"))
    found = chosen(Known(table), "representative", 3)
    for label in (0, 1):
        expected = set()
        for index in range(3):
            rows = torch.nonzero((real.labels == label) & (group == index)).flatten()
            distance = (table[0, rows] - table[0, rows].mean(0)).norm(dim=1)
            expected.add(int(rows[distance.argmin()]))
        assert found[label] == expected
    for ipc in (1, 8, 15):
        chosen(Known(table), "representative", ipc)


@pytest.mark.parametrize("init", ["correct", "representative"])
def test_networks_are_needed_to_choose_by(init: Init) -> None:
    with pytest.raises(UserError, match=f"init={init} chooses images by trained networks, and this method"):
        start(init)


@pytest.mark.parametrize("space", ["network", "unit"])
def test_mix_at_factor_one_is_real(space: Space) -> None:
    assert torch.equal(start("mix", 3, space), start("real", 3, space))


def test_mix_fills_tiles_with_images_of_the_class() -> None:
    made = initialise(*clusters(), 3, "mix", "unit", 0, TWO).images.detach()
    whole = start("real", 12)
    copied(whole, 12)
    for label in (0, 1):
        assert torch.equal(made[3 * label : 3 * label + 3], mosaic(whole[12 * label : 12 * label + 12], 2))
    in_network = initialise(*clusters(), 3, "mix", "network", 0, TWO).images.detach()
    torch.testing.assert_close(in_network, PREPROCESS(made))


def test_real_at_a_factor_keeps_whole_images() -> None:
    assert torch.equal(initialise(*clusters(), 3, "real", "unit", 0, TWO).images, start("real"))


def test_a_multi_formation_must_fit() -> None:
    initialise(*clusters(), 15, "real", "unit", 0, TWO)
    assert len(initialise(*clusters(), 4, "mix", "unit", 0, TWO).images.unique(dim=0)) == 8  # of 15 images
    with pytest.raises(UserError, match="smaller factor"):
        initialise(*clusters(), 1, "noise", "unit", 0, MultiFormation(factor=5))


# Clusters of features ---------------------------------------------------------------------------------------


def embed(images: Tensor) -> Tensor:
    """Return something of images that says nothing of their grey level: the rest of their sum."""
    grey = (255 * PREPROCESS.inverse(images)).round().sum((1, 2, 3))
    return torch.stack([grey % 7, grey % 3 * 20], 1)


@pytest.mark.parametrize("formation", [MultiFormation(), TWO])
def test_clusters_are_of_features_and_fill_tiles(formation: MultiFormation) -> None:
    task, real = clusters()
    made = initialise(task, real, 3, "clusters", "unit", 0, formation, embed=embed).images.detach()
    count = 3 * formation.factor**2
    for label in (0, 1):
        rows = real.indices_of(label)
        fit = partial(mini_batch, seed=derive(0, "init", label) % 2**32)
        nearest = rows[k_means(embed(task.preprocess(real.unit(rows))), count, fit)]
        expected = mosaic(real.unit(nearest), formation.factor)
        assert torch.equal(made[3 * label : 3 * label + 3], expected)
    assert not torch.equal(made, start("kmeans", 3))


@pytest.mark.parametrize("init", ["kmeans", "clusters"])
def test_some_images_of_a_class_are_clustered(init: Init) -> None:
    task, real = clusters()

    def chosen(count: int, candidates: int, seed: int = 0) -> set[int]:
        made = initialise(
            task, real, count, init, "unit", seed, embed=embed, candidates=candidates
        ).images.detach()
        near = (made[:, None] - real.unit(slice(None))[None]).abs().flatten(2).amax(2)
        assert near.amin(1).max() < 1e-6
        return set(near.argmin(1).tolist())

    everything = chosen(2, 0)
    assert chosen(2, 15) == everything == chosen(2, 1000)
    few = [chosen(2, 2, seed) for seed in range(8)]  # as many as are copied: they are random images
    assert len(set(map(frozenset, few))) > 4
    assert len(chosen(5, 2)) == 10  # never fewer than are copied


def test_clusters_need_a_network() -> None:
    with pytest.raises(UserError, match="init=clusters chooses images by a network"):
        start("clusters")
