"""Select real images to train on: at random, or by the coreset methods that distillation is compared with.

Each class is selected from on its own. All methods but the random one look at a class through trained
networks: as features (the input of the last layer), or as one score per image. Each function takes the
features or scores of a class's n images and returns the positions of ``count`` ≤ n distinct ones, int64
[count].
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError
from dsdistill.seeding import generator

VALIDATION_SHARE = 0.1
"""Of the training images of each class, the part that a validation split holds out."""


def validation_split(real: RealDataset) -> tuple[Tensor, Tensor]:
    """Part training images into those to train on and those held out, which choices are made by.

    A tenth of each class is held out, at least one image, and none of a class of one. It is the same for
    every network and every seed, so that accuracies on it compare.

    Returns:
        positions in ``real``, int64, ascending: of the images to train on, and of those held out.

    Raises:
        UserError: no class has two images.
    """
    held_out = torch.zeros(len(real), dtype=torch.bool)
    for label, count in enumerate(real.counts.tolist()):
        if count > 1:
            order = torch.randperm(count, generator=generator(0, "validation", label))
            held_out[real.indices_of(label)[order[: max(1, round(VALIDATION_SHARE * count))]]] = True
    if not held_out.any():
        raise UserError(f"no class of {real.name} has two training images, so that none can be held out")
    return (~held_out).nonzero().squeeze(1), held_out.nonzero().squeeze(1)


def check_counts(real: RealDataset, counts: Tensor) -> None:
    """Raise a UserError where a class has fewer images than ``counts`` (int64 [K]) asks for."""
    for label, count in enumerate(counts.tolist()):
        if (available := len(real.indices_of(label))) < count:
            raise UserError(
                f"class {real.classes[label]!r} of {real.name} has {available} {real.split} images, "
                f"fewer than the {count} to select; ask for fewer images per class"
            )


def random_selection(real: RealDataset, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Draw images of each class uniformly, without replacement.

    Args:
        real: the images to select from.
        counts: int64 [K], the number of images of each class.
        generator: on the CPU.

    Returns:
        int64 [sum of counts] positions in ``real``, class-major.

    Raises:
        UserError: a class has fewer images than its count.
    """
    check_counts(real, counts)
    selected = []
    for label, count in enumerate(counts.tolist()):
        members = real.indices_of(label)
        selected.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(selected)


# By features, float [n, D] ----------------------------------------------------------------------------------


def herding(features: Tensor, count: int) -> Tensor:
    """Add, one by one, the image that brings the mean of the selected images nearest to the mean of all.

    Herding (Welling 2009) as iCaRL chooses exemplars (Rebuffi et al. 2017, algorithm 4), without iCaRL's
    scaling of features to unit length. Ties go to the first image. O(n·count·D).
    """
    centred = features - features.mean(0)  # so that the mean to approach is 0
    norms = centred.square().sum(1)
    total = torch.zeros_like(centred[0])
    selected: list[int] = []
    while len(selected) < count:
        best = int((norms + 2 * (centred @ total)).argmin())  # ‖total + x‖² - ‖total‖² of every image x
        total += centred[best]
        norms[best] = torch.inf
        selected.append(best)
    return torch.tensor(selected)


def k_center(features: Tensor, count: int) -> Tensor:
    """Add, one by one, the image farthest from all selected ones; the first is the one nearest to the mean.

    The greedy 2-approximation of the k-centre problem (Sener & Savarese 2018, algorithm 1), which leaves the
    first image open. Ties go to the first image. O(n·count·D).
    """
    selected = [int((features - features.mean(0)).square().sum(1).argmin())]
    nearest = features.new_full((len(features),), torch.inf)
    while len(selected) < count:
        exact = "donot_use_mm_for_euclid_dist"
        to_last = torch.cdist(features, features[selected[-1:]], compute_mode=exact).squeeze(1)
        nearest = nearest.minimum(to_last)
        nearest[selected[-1]] = -1  # less than the distance of any duplicate, so never selected again
        selected.append(int(nearest.argmax()))
    return torch.tensor(selected)


_CLUSTERED_BYTES = 1 << 30


def few_enough(rows: Tensor, values: int, stream: torch.Generator) -> Tensor:
    """Return the positions of images to cluster: all, or of too many a random part.

    Args:
        rows: int64 [n], ascending.
        values: of an image; as float32, those of all that are returned take a gigabyte at most.
        stream: of the draw.
    """
    most = max(1, _CLUSTERED_BYTES // (4 * values))
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=stream)[:most].sort().values]


Points = NDArray[np.floating]


def lloyd(points: Points, count: int) -> Points:
    """Fit k-means centres [count, D] to points [n, D] by Lloyd's algorithm from one k-means++ start.

    The start is the same at every call.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # duplicate images make centres coincide
        return KMeans(count, n_init=1, random_state=0).fit(points).cluster_centers_


def mini_batch(points: Points, count: int, seed: int) -> Points:
    """Fit k-means centres [count, D] to points [n, D] on batches of 4096; the best of three starts."""
    from sklearn.cluster import MiniBatchKMeans

    return MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=4096).fit(points).cluster_centers_


def k_means(
    features: Tensor, count: int, fit: Callable[[Points, int], Points] = lloyd, nearest: int = 1
) -> Tensor:
    """Take the image nearest to each of ``count`` k-means centres, centre by centre, each image once.

    Args:
        fit: computes the centres: (points [n, D], count) -> [count, D].
        nearest: how many to take at each centre; fewer at the last ones where all images are taken.
    """
    centres = torch.from_numpy(fit(features.cpu().numpy(), count)).to(features)
    selected: list[int] = []
    for distances in torch.cdist(centres, features):
        distances[selected] = torch.inf
        left = min(nearest, len(features) - len(selected))
        selected += distances.argsort(stable=True)[:left].tolist()
    return torch.tensor(selected)


BY_FEATURES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "herding": herding,
    "k-center": k_center,
    "k-means": k_means,
}

# By scores, float [n] ---------------------------------------------------------------------------------------


def el2n(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the EL2N score of every image: the mean error norm of networks early in training.

    E‖softmax(logits) - onehot(label)‖₂ (Paul et al. 2021, definition 2.2), in [0, √2].

    Args:
        logits: float [networks, n, K].
        labels: int64 [n].

    Returns:
        float [n].
    """
    errors = logits.softmax(-1) - F.one_hot(labels, logits.shape[-1])
    return errors.norm(dim=-1).mean(0)


def highest(scores: Tensor, count: int) -> Tensor:
    """Take the images of the highest scores, in descending order; ties go to the first image."""
    return scores.argsort(descending=True, stable=True)[:count].cpu()


def lowest(scores: Tensor, count: int) -> Tensor:
    """Take the images of the lowest scores, in ascending order; ties go to the first image."""
    return scores.argsort(stable=True)[:count].cpu()


BY_EL2N: dict[str, Callable[[Tensor, int], Tensor]] = {
    "el2n": highest,  # as published: the hardest images, which teach little when few are selected
    "el2n-easy": lowest,
}
