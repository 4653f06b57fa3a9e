"""A distilled set as a torch data set."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dsdistill.errors import UserError
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.multi_formation import Mode, MultiFormation, decode
from tests.helpers.labels import views_of
from tests.helpers.storage import make, standardise, zca


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_stock_dataloader_with_workers(tmp_path: Path) -> None:
    distilled = make(attributes={"learned_lr": 0.02, "method": "mtt"})
    set_file.write(tmp_path / "set.h5", distilled)
    dataset = set_file.load(tmp_path / "set.h5")
    (tmp_path / "set.h5").unlink()  # nothing of it is needed any more

    assert len(dataset) == 12
    assert (dataset.lr, dataset.classes, dataset.attributes["method"]) == (0.02, distilled.classes, "mtt")
    mean = distilled.preprocess.state()["mean"].view(-1, 1, 1)
    std = distilled.preprocess.state()["std"].view(-1, 1, 1)
    torch.testing.assert_close(dataset.images, (distilled.images - mean) / std)
    torch.testing.assert_close(dataset.preprocess(distilled.images), dataset.images)

    image, label = dataset[11]
    assert (image.shape, image.dtype, type(label), label) == ((3, 8, 8), torch.float32, int, 2)
    batches = list(DataLoader(dataset, batch_size=5, num_workers=2))
    assert torch.equal(torch.cat([images for images, _ in batches]), dataset.images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), dataset.labels)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3][0], dataset[3][0])  # what spawned workers get


def test_space_and_soft_labels(tmp_path: Path) -> None:
    soft = torch.randn(12, 3, generator=torch.Generator().manual_seed(5))
    distilled = make(soft_labels=soft)
    set_file.write(tmp_path / "set.h5", distilled)
    dataset = set_file.load(tmp_path / "set.h5", space="unit", labels="soft")
    assert torch.equal(dataset.images, distilled.images)
    assert torch.equal(dataset[7][1], soft[7])
    assert dataset.lr is None
    assert set_file.load(tmp_path / "set.h5")[7][1] == 1

    set_file.write(tmp_path / "set.h5", make())
    with pytest.raises(UserError, match="no soft labels"):
        set_file.load(tmp_path / "set.h5", labels="soft")
    with pytest.raises(UserError, match="unknown space"):
        set_file.load(tmp_path / "set.h5", space="pixel")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["single", "multi", "bound"])
@pytest.mark.parametrize("whitened", [False, True])
def test_a_multi_formation_is_decoded_class_by_class(tmp_path: Path, mode: Mode, whitened: bool) -> None:
    path, multi_formation = tmp_path / "set.h5", MultiFormation(factor=3, mode=mode, bound=12)
    labels = torch.tensor([0] * 5 + [2] * 7)  # one class has none
    soft = torch.randn(12, 3, generator=torch.Generator().manual_seed(5))
    preprocess = zca(3 * 8 * 8) if whitened else standardise(3)
    distilled = make(labels=labels, soft_labels=soft, preprocess=preprocess, multi_formation=multi_formation)
    set_file.write(path, distilled)
    decoded = torch.cat(
        [decode(distilled.images[rows], multi_formation) for rows in (slice(5), slice(5, 12))]
    )

    pixels = set_file.load(path, space="unit", labels="soft")
    assert torch.equal(pixels.images, decoded)
    counts = [multi_formation.decoded_count(5), multi_formation.decoded_count(7)]
    assert pixels.labels.tolist() == [0] * counts[0] + [2] * counts[1]
    assert (pixels.stored.tolist(), pixels.multi_formation, len(pixels)) == (
        [5, 0, 7],
        multi_formation,
        sum(counts),
    )
    origins = torch.cat([multi_formation.origins(5), 5 + multi_formation.origins(7)])
    assert pixels.soft_labels is not None
    assert torch.equal(pixels.soft_labels, soft[origins])
    assert torch.equal(pixels[len(pixels) - 1][1], soft[origins[-1]])

    seen = set_file.load(path)
    torch.testing.assert_close(seen.images, preprocess(decoded))
    assert seen[0][1] == 0

    stored = set_file.load(path, space="unit", labels="soft", decode=False)
    assert torch.equal(stored.images, distilled.images)
    assert torch.equal(stored.labels, labels)
    assert torch.equal(stored[11][1], soft[11])
    assert (stored.stored.tolist(), stored.multi_formation) == ([5, 0, 7], multi_formation)


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_several_items_at_once(labels: Literal["hard", "soft"]) -> None:
    soft = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    dataset = DistilledDataset(make(soft_labels=soft), "unit", labels)
    targets = dataset.labels if labels == "hard" else soft
    mask = torch.arange(12) % 5 == 0
    kinds: list[tuple[Any, list[int]]] = [
        (slice(0, 3), [0, 1, 2]),
        (slice(None, None, -4), [11, 7, 3]),
        (slice(20, 30), []),
        ([0, -1, 5], [0, 11, 5]),
        ([], []),
        (range(2), [0, 1]),
        (np.array([3, 4]), [3, 4]),
        (torch.tensor([2], dtype=torch.uint8), [2]),
        (mask, [0, 5, 10]),
    ]
    for index, positions in kinds:
        images, target = dataset[index]
        assert torch.equal(images, dataset.images[positions])
        assert torch.equal(target, targets[positions])
    for number in (-1, 11, np.int64(11), torch.tensor(11)):
        image, target = dataset[number]
        assert torch.equal(image, dataset.images[11])
        assert isinstance(target, int) if labels == "hard" else torch.equal(target, soft[11])


def test_what_is_no_index_says_why() -> None:
    dataset = DistilledDataset(make())
    for index in ("0", (0, 1), True, None, 1.5, [0.5], [[0, 1]], torch.zeros(20, 20)):
        with pytest.raises(TypeError, match="takes a number, a slice, a list or a mask, not") as caught:
            dataset[index]
        assert "\n" not in str(caught.value)
    for index in (12, -13, [0, 12], torch.tensor([True])):
        with pytest.raises(IndexError, match=r"there is no image -?1[23]: the set holds 12|the mask has 1"):
            dataset[index]
    assert len(list(dataset)) == 12  # a loop ends at the IndexError


def test_weights_and_views_come_with_the_images_that_they_are_of() -> None:
    weights = torch.rand(12)
    stored = make(multi_formation=MultiFormation(factor=2), sample_weights=weights)
    labelled = dataclasses.replace(stored, views=views_of(stored))
    decoded = DistilledDataset(labelled)
    assert decoded.views is labelled.views
    assert decoded.sample_weights is not None
    assert torch.equal(decoded.sample_weights, weights[stored.decode()[1]])
    plain = DistilledDataset(labelled, decode=False)
    assert plain.views is None  # which are those of decoded images
    assert plain.sample_weights is weights
