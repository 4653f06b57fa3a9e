"""The terms of the catalogue's data sets: what is distilled from them shows their images."""

from __future__ import annotations

from typing import NamedTuple

from dsdistill.data.constants import SUBSETS


class Licence(NamedTuple):
    """The terms of a data set.

    Attributes:
        id: as the Hugging Face Hub writes it, such as "cc-by-4.0"; "unknown" and "other" are two of its ids.
        terms: a sentence with the source of the terms.
    """

    id: str
    terms: str


_IMAGENET = Licence(
    "other",
    "ImageNet's terms of access: non-commercial research and education only (https://image-net.org/download).",
)
_CIFAR = Licence(
    "unknown",
    "Its authors state no licence and ask for citation (https://www.cs.toronto.edu/~kriz/cifar.html).",
)
_LICENCES = {
    "digits": Licence("cc-by-4.0", "CC BY 4.0 (UCI, https://doi.org/10.24432/C50P49)."),
    "mnist": Licence(
        "cc-by-sa-3.0", "CC BY-SA 3.0, as Yann LeCun and Corinna Cortes stated on MNIST's page."
    ),
    "fashion-mnist": Licence("mit", "MIT (https://github.com/zalandoresearch/fashion-mnist)."),
    "kmnist": Licence("cc-by-sa-4.0", "CC BY-SA 4.0 (https://github.com/rois-codh/kmnist)."),
    "svhn": Licence("other", "For non-commercial use only (http://ufldl.stanford.edu/housenumbers)."),
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    **dict.fromkeys(("imagenet", "tiny-imagenet", *SUBSETS), _IMAGENET),
}
_UNKNOWN = Licence("unknown", "Unknown: see the source of the data.")


def licence_of(dataset: str) -> Licence:
    """Return the terms of a data set by its name; they are unknown for one's own.

    >>> licence_of("fashion-mnist").id, licence_of("folder:pets").terms
    ('mit', 'Unknown: see the source of the data.')
    """
    return _LICENCES.get(dataset, _UNKNOWN)
