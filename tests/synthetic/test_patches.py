"""Patches that trained networks choose, against plain loops over images and crops."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.augment.crops import RandomResizedCrop
from dsdistill.data.preprocess import ZCA
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.seeding import generator
from dsdistill.synthetic import patches as patch_file
from dsdistill.synthetic.initial import initialise
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation, decode, mosaic
from dsdistill.synthetic.patches import PatchConfig
from dsdistill.synthetic.set import ANCHORS, SyntheticSet
from dsdistill.synthetic.trained import TrainedNetworks
from tests.helpers.engines import toy

SIZE = 12
TWO = MultiFormation(factor=2)
WHOLE = PatchConfig(pool=0, order="first", crops=0)
CIM = PatchConfig(pool=8, order="first", crops=0, grid=2, shrink="nearest")


class Linear(TrainedNetworks):
    """A random linear classifier of the toy images, which looks at bright pixels, and knows difficulties."""

    count = 1

    def __init__(self, images: int) -> None:
        draw = generator(0, "linear")
        self._weight = torch.randn(2 * SIZE**2, 3, generator=draw)
        self.hard = torch.rand(images, generator=draw)

    def logits(self, network: int, images: Tensor) -> Tensor:
        assert network == 0
        return images.flatten(1) @ self._weight

    def activation(self, network: int, images: Tensor, labels: Tensor) -> Tensor:
        assert network == 0
        return (images.mean(1) * (1 + labels[:, None, None])).clamp(0, 1)

    def difficulty(self) -> Tensor:
        return self.hard


def data(channels: int = 2) -> tuple[Task, RealDataset, Linear]:
    task, real = toy(channels, SIZE, counts=(20, 12, 16))
    return task, real, Linear(len(real))


def start(
    config: PatchConfig,
    ipc: int = 2,
    form: MultiFormation = IDENTITY,
    seed: int = 0,
    anchored: bool = False,
) -> SyntheticSet:
    task, real, teacher = data()
    return initialise(task, real, ipc, "patches", "unit", seed, form, teacher, config, anchored)


def crops_of(label: int, config: PatchConfig, seed: int = 0) -> list[tuple[int, list[list[int]]]]:
    """Return the images of a class that are considered, each with the boxes that are drawn."""
    _, real, _ = data()
    members = [row for row, of in enumerate(real.labels.tolist()) if of == label]
    order = torch.randperm(len(members), generator=generator(seed, "init", label)).tolist()
    pool = [members[place] for place in order][: config.pool or None]
    draw = RandomResizedCrop(scale=config.scale, ratio=(1.0, 1.0))
    boxes = draw.draw(len(pool) * config.crops, SIZE, generator(seed, "patches", label)).boxes.tolist()
    return [(row, boxes[place * config.crops :][: config.crops]) for place, row in enumerate(pool)]


def cell_of(row: int, box: list[int], side: int) -> Tensor:
    _, real, _ = data()
    top, left, height, width = box
    part = real.images[row : row + 1, :, top : top + height, left : left + width].float() / 255
    return F.interpolate(part, (side, side), mode="bilinear", align_corners=False, antialias=True)


def loss_of(seen: Tensor, label: int) -> float:
    _, _, teacher = data()
    return -float(teacher.logits(0, seen).double().log_softmax(1)[0, label])


def amid_zeros(cell: Tensor) -> Tensor:
    task, _, _ = data()
    seen = torch.zeros(1, 2, SIZE, SIZE)
    side = cell.shape[-1]
    first = (SIZE - side) // 2
    seen[..., first : first + side, first : first + side] = task.preprocess(cell)
    return seen


def put_together(cells: list[Tensor], ipc: int, grid: int) -> Tensor:
    """Fill cell k of image j with patch k·ipc + j."""
    side = SIZE // grid
    images = torch.zeros(ipc, 2, SIZE, SIZE)
    for place, cell in enumerate(cells):
        k, j = divmod(place, ipc)
        row, column = divmod(k, grid)
        images[j, :, row * side : (row + 1) * side, column * side : (column + 1) * side] = cell[0]
    return images


@pytest.mark.parametrize("grid", [1, 2, 3])
@pytest.mark.parametrize("pick", ["easiest", "hardest", "middle"])
@pytest.mark.parametrize("keep", ["confidence", "cam"])
def test_crops_equal_a_plain_loop(grid: int, pick: str, keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_file, "_BATCH_BYTES", 4 * 2 * SIZE**2 * 5)  # the last batch is smaller
    options = {"pick": pick, "keep": keep, "grid": grid}
    config = PatchConfig(pool=11, crops=3, scale=(0.2, 0.9), **options)  # type: ignore[arg-type]
    task, real, teacher = data()
    made, side, ipc = start(config, ipc=1).images.detach(), SIZE // grid, 1
    for label in range(3):
        best: list[tuple[float, Tensor]] = []
        for row, boxes in crops_of(label, config):
            cells = [cell_of(row, box, side) for box in boxes]
            losses = [loss_of(amid_zeros(cell), label) for cell in cells]
            seen = task.preprocess(real.images[row : row + 1].float() / 255)
            looks = teacher.activation(0, seen, torch.tensor([label]))[0]
            held = [
                -float(looks[top : top + height, left : left + width].sum())
                for top, left, height, width in boxes
            ]
            kept = min(range(3), key=lambda k: (losses if keep == "confidence" else held)[k])
            best.append((losses[kept], cells[kept]))
        best.sort(key=lambda each: -each[0] if pick == "hardest" else each[0])
        first = (len(best) - ipc * grid**2) // 2 if pick == "middle" else 0
        chosen = [cell for _, cell in best[first : first + ipc * grid**2]]
        torch.testing.assert_close(made[label : label + 1], put_together(chosen, ipc, grid))


def test_rded_keeps_one_crop_of_each_image_and_fills_cell_after_cell() -> None:
    config = PatchConfig(pool=0, crops=4, grid=2, scale=(0.1, 1.0))
    made = start(config, ipc=3).images.detach()
    best = []
    for row, boxes in crops_of(1, config):
        cells = [cell_of(row, box, 6) for box in boxes]
        best.append(min((loss_of(amid_zeros(cell), 1), place, cell) for place, cell in enumerate(cells)))
    best.sort(key=lambda each: each[0])
    torch.testing.assert_close(made[3:6], put_together([each[2] for each in best[:12]], 3, 2))
    assert not torch.equal(made, start(config, ipc=3, seed=1).images)


def easiest(label: int, pool: int, count: int) -> list[int]:
    """Return the first images of a class in the data set's order that are classified with least loss."""
    task, real, _ = data()
    members = [row for row, of in enumerate(real.labels.tolist()) if of == label][:pool]
    losses = {
        row: loss_of(task.preprocess(real.images[row : row + 1].float() / 255), label) for row in members
    }
    return sorted(members, key=lambda row: losses[row])[:count]


def test_cim_makes_a_mosaic_of_the_easiest_of_the_first_images() -> None:
    task, real, _ = data()
    made = start(CIM, 2, TWO, anchored=True)
    for label in range(3):
        rows = easiest(label, 8, 8)
        whole = real.images[rows].float() / 255
        assert torch.equal(made.images[2 * label : 2 * label + 2], mosaic(whole, 2))
        anchors = made.constants[ANCHORS][8 * label : 8 * label + 8]
        assert torch.equal(anchors, task.preprocess(whole))
        tiles = decode(made.images[2 * label : 2 * label + 2].detach(), TWO)
        apart = (tiles[:, None] - whole).abs().flatten(2).mean(2)
        assert apart.argmin(1).tolist() == list(range(8))  # each anchor is of its tile


def test_whole_images_are_shrunk_with_antialiasing() -> None:
    _, real, _ = data()
    config = dataclasses.replace(WHOLE, grid=3)
    rows = easiest(0, 20, 9)
    cells = F.interpolate(
        real.images[rows].float() / 255, (4, 4), mode="bilinear", align_corners=False, antialias=True
    )
    torch.testing.assert_close(start(config, 1).images[:1].detach(), put_together(list(cells[:, None]), 1, 3))


def test_whole_images_in_one_cell_stay_as_they_are() -> None:
    _, real, _ = data()
    made = start(WHOLE, 2, anchored=True)
    assert torch.equal(made.images[:2], real.images[easiest(0, 20, 2)].float() / 255)
    torch.testing.assert_close(made.constants[ANCHORS], data()[0].preprocess(made.images))


@pytest.mark.parametrize("pick", ["easiest", "hardest", "middle"])
def test_images_are_ranked_by_difficulty(pick: str) -> None:
    _, real, teacher = data()
    config = dataclasses.replace(WHOLE, pick=pick, score="el2n")
    made = start(config, 2).images.detach()
    members = [row for row, of in enumerate(real.labels.tolist()) if of == 2]
    ranked = sorted(members, key=lambda row: float(teacher.hard[row]), reverse=pick == "hardest")
    first = 7 if pick == "middle" else 0  # of 16
    assert torch.equal(made[4:6], real.images[ranked[first : first + 2]].float() / 255)


def test_network_space_starts_from_the_same_pixels() -> None:
    task, real, teacher = data()
    made = initialise(task, real, 1, "patches", "network", 0, IDENTITY, teacher, PatchConfig(grid=2))
    torch.testing.assert_close(made.images.detach(), task.preprocess(start(PatchConfig(grid=2), 1).images))


def test_whitened_images_may_be_cropped() -> None:
    task, real, teacher = data()
    whitened = dataclasses.replace(task, preprocess=ZCA.fit(real.images))
    made = initialise(whitened, real, 1, "patches", "unit", 0, IDENTITY, teacher, PatchConfig(grid=2))
    images = made.images.detach()
    assert 0 <= float(images.min()) < float(images.max()) <= 1 + 1e-6


def test_anchors_of_crops_are_these_crops_in_full_size() -> None:
    config = PatchConfig(pool=0, crops=2, grid=2, scale=(0.5, 1.0))
    made = start(config, 1, TWO, anchored=True)
    tiles = made.of(torch.arange(3)).detach()
    anchors = made.constants[ANCHORS]
    assert anchors.shape == tiles.shape
    apart = (F.avg_pool2d(anchors, 4)[:, None] - F.avg_pool2d(tiles, 4)).abs().flatten(2).mean(2)
    assert apart.argmin(1).tolist() == list(range(12))


def refused(said: str, config: PatchConfig, ipc: int = 1, **options: object) -> None:
    with pytest.raises(UserError, match=said) as caught:
        start(config, ipc, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_what_cannot_be_chosen_is_refused() -> None:
    refused("5 cells do not divide a side of 12 pixels: .* --size, such as 15", PatchConfig(grid=5))
    refused("class 'b' has 12 images to choose from, fewer than the 16 to start", PatchConfig(grid=4))
    refused(
        "'a' has 3 images to choose from, of 20, fewer than the 4 .* larger patches.pool",
        PatchConfig(pool=3),
        4,
    )
    refused("with patches.grid=2 and multi_formation.mode=single", WHOLE, form=TWO, anchored=True)
    with pytest.raises(UserError, match=r"patches\.scale is the smaller share first"):
        PatchConfig(scale=(0.9, 0.5))
    task, real, _ = data()
    with pytest.raises(UserError, match="init=patches chooses images by trained networks"):
        initialise(task, real, 1, "patches", "unit", 0)
    with pytest.raises(UserError, match="start from noise have no real images to be paired with"):
        initialise(task, real, 1, "noise", "unit", 0, anchored=True)


def test_difficulties_are_of_these_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Linear, "difficulty", lambda _: torch.zeros(7))
    refused("know how hard 7 images are, and toy has 48", dataclasses.replace(WHOLE, score="el2n"))
    monkeypatch.setattr(Linear, "difficulty", TrainedNetworks.difficulty)
    refused("do not say how hard each image was", dataclasses.replace(WHOLE, score="el2n"))


def test_mixed_images_are_anchored_too() -> None:
    task, real, _ = data()
    made = initialise(task, real, 2, "mix", "unit", 0, TWO, anchored=True)
    anchors = task.preprocess.inverse(made.constants[ANCHORS])
    for label in range(3):
        again = mosaic(anchors[8 * label : 8 * label + 8], 2)
        torch.testing.assert_close(made.images[2 * label : 2 * label + 2].detach(), again)
