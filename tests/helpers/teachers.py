"""Small teachers, and views that they have answered."""

from __future__ import annotations

import torch
from torch import Tensor

from dsdistill.augment.crops import RandomResizedCrop
from dsdistill.augment.mix import CutMix, Mixup
from dsdistill.objectives.labels import label_distances
from dsdistill.synthetic.answers import Answers, encode, encode_distances
from dsdistill.synthetic.views import Views
from dsdistill.teachers import Committee, Teacher
from tests.helpers.evaluation import fresh


def committee(*seeds: int, name: str = "convnet2-w8-batch", **options: object) -> Committee:
    """Return untrained teachers of stripes, one for each seed."""
    teachers = []
    for seed in seeds or (11,):
        network = fresh(seed, name).eval().requires_grad_(False)
        teachers.append(Teacher(network, f"{name} {seed}", f"{seed:016x}", architecture=name))
    return Committee(teachers, **options)  # type: ignore[arg-type]


def views_of(
    images: Tensor,
    labels: Tensor,
    teacher: Committee,
    *,
    epochs: int = 2,
    batch_size: int = 4,
    mixing: str = "cutmix",
    encoding: str = "float32",
) -> Views:
    """Return views of all images in each epoch, and what a teacher answers to them."""
    draws, size, count = torch.Generator().manual_seed(3), images.shape[-1], len(images)
    mixer = Mixup(beta=0.8) if mixing == "mixup" else CutMix(probability=1.0)
    rows, crops, flips, partners, starts, weights, boxes, of_epoch = [], [], [], [], [0], [], [], []
    for epoch in range(epochs):
        for part in torch.randperm(count, generator=draws).split(batch_size):
            mix = mixer.draw(len(part), size, draws)
            rows.append(part.int())
            crops.append(RandomResizedCrop().draw(len(part), size, draws).boxes.short())
            flips.append(torch.rand(len(part), generator=draws) < 0.5)
            partners.append(mix.partner.int())
            starts.append(starts[-1] + len(part))
            boxes.append(torch.cat([mix.rows[0], mix.columns[0]]).short())
            weights.append(1.0 if mix.weight is None else mix.weight[0].item())
            of_epoch.append(epoch)
    parts = {
        "size": size,
        "images": count,
        "rows": torch.cat(rows),
        "crops": torch.cat(crops),
        "flips": torch.cat(flips),
        "partners": torch.cat(partners),
        "starts": torch.tensor(starts),
        "epochs": torch.tensor(of_epoch, dtype=torch.int32),
        "mixing": mixing,
        "boxes": torch.stack(boxes),
        "weights": torch.tensor(weights, dtype=torch.float64),
    }
    blank = torch.zeros(starts[-1], teacher.logits(images[:1]).shape[1])
    views = Views(**parts, answers=encode(blank, "float32"))  # type: ignore[arg-type]
    batches = [views.batch(number) for number in range(len(views))]
    answers = [teacher.logits(batch.images(images)) for batch in batches]
    return Views(**parts, answers=_encoded(answers, views, labels, encoding))  # type: ignore[arg-type]


def _encoded(answers: list[Tensor], views: Views, labels: Tensor, encoding: str) -> Answers:
    classes = answers[0].shape[1]
    if encoding != "distances":
        return encode(torch.cat(answers), encoding, 2 if encoding == "top" else None)  # type: ignore[arg-type]
    distances = []
    for number, logits in enumerate(answers):
        batch = views.batch(number)
        own = labels[batch.rows]
        distances.append(label_distances(logits, own, own[batch.mix.partner]))
    return encode_distances(torch.cat(distances), classes)
