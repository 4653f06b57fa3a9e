"""Choosing real images to train on: at random, or by the coreset methods that distilling is compared with.

Every class is chosen from on its own. All but the random choice see a class through trained networks: as
features, what the last layer of one is given; or as one score per image. Each function takes those of a
class's n images and returns the positions in them of ``count`` ≤ n different ones, int64 [count].
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError


def check_counts(real: RealDataset, counts: Tensor) -> None:
    """Raise a UserError where a class has fewer images than ``counts`` (int64 [K]) asks for."""
    for label, count in enumerate(counts.tolist()):
        if (held := len(real.indices_of(label))) < count:
            raise UserError(
                f"class {real.classes[label]!r} of {real.name} has {held} {real.split} images, "
                f"fewer than the {count} to select; ask for fewer images per class"
            )


def random_selection(real: RealDataset, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Draw images of each class uniformly, without replacement.

    Args:
        real: where to choose from.
        counts: int64 [K], how many of each class.
        generator: on the CPU.

    Returns:
        int64 [sum of counts] positions in ``real``, class-major.

    Raises:
        UserError: a class has fewer images than asked for.
    """
    check_counts(real, counts)
    chosen = []
    for label, count in enumerate(counts.tolist()):
        members = real.indices_of(label)
        chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(chosen)


# By features, float [n, D] ----------------------------------------------------------------------------------


def herding(features: Tensor, count: int) -> Tensor:
    """Add, one by one, the image that brings the mean of the chosen nearest to the mean of all.

    Herding (Welling 2009) as iCaRL chooses exemplars (Rebuffi et al. 2017, algorithm 4), without iCaRL's
    scaling of features to unit length. Ties go to the first image. O(n·count·D).
    """
    centred = features - features.mean(0)  # so that the mean to approach is 0
    norms = centred.square().sum(1)
    total = torch.zeros_like(centred[0])
    chosen: list[int] = []
    while len(chosen) < count:
        best = int((norms + 2 * (centred @ total)).argmin())  # ‖total + x‖² - ‖total‖² of every image x
        total += centred[best]
        norms[best] = torch.inf
        chosen.append(best)
    return torch.tensor(chosen)


def k_center(features: Tensor, count: int) -> Tensor:
    """Add, one by one, the image farthest from all chosen ones, beginning with the one nearest the mean.

    The greedy 2-approximation of the k-centre problem (Sener & Savarese 2018, algorithm 1), which leaves the
    beginning open. Ties go to the first image. O(n·count·D).
    """
    chosen = [int((features - features.mean(0)).square().sum(1).argmin())]
    nearest = features.new_full((len(features),), torch.inf)
    while len(chosen) < count:
        exact = "donot_use_mm_for_euclid_dist"
        to_last = torch.cdist(features, features[chosen[-1:]], compute_mode=exact).squeeze(1)
        nearest = nearest.minimum(to_last)
        nearest[chosen[-1]] = -1  # and there it stays: below the distance of a duplicate
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen)


def k_means(features: Tensor, count: int) -> Tensor:
    """Take the image nearest to each of ``count`` k-means centres, centre by centre, each image once.

    Lloyd's algorithm from one k-means++ beginning, which is the same at every call.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    points = features.cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of centres that coincide, where images do
        centres = KMeans(count, n_init=1, random_state=0).fit(points).cluster_centers_
    distances = torch.cdist(torch.from_numpy(centres).to(features), features)
    chosen: list[int] = []
    for row in distances:
        row[chosen] = torch.inf
        chosen.append(int(row.argmin()))
    return torch.tensor(chosen)


BY_FEATURES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "herding": herding,
    "k-center": k_center,
    "k-means": k_means,
}

# By scores, float [n] ---------------------------------------------------------------------------------------


def el2n(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the EL2N score of every image: how far, on average, networks early in training are off.

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
    "el2n": highest,  # as published: the hardest, of which few teach little
    "el2n-easy": lowest,
}
