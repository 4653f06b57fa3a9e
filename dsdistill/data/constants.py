"""Published constants of the catalogue data sets: normalisation, class names, ImageNet subsets."""

from __future__ import annotations

DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

# mean and std per channel of the train split in [0, 1], as the papers use them
IMAGENET_CONSTANTS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CONSTANTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2861,), (0.3530,)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    # Those of DC, DSA, DM, IDM and DataDAM, here for every method. The code of IDC, NCFM and the MTT family
    # reuses the constants of CIFAR-10, so its pixels are a third larger in network space.
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def constants_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the published mean and deviation of a data set, per channel in [0, 1], or None.

    >>> constants_of("mnist"), constants_of("digits")
    (((0.1307,), (0.3081,)), None)
    """
    is_imagenet = name in ("imagenet", "tiny-imagenet", *SUBSETS)
    return IMAGENET_CONSTANTS if is_imagenet else CONSTANTS.get(name)


# ILSVRC class index -> WordNet id, for the classes of the subsets below
_WNIDS = {
    **{0: "n01440764", 9: "n01518878", 11: "n01531178", 22: "n01614925", 72: "n01773157", 84: "n01806143"},
    **{88: "n01818515", 89: "n01819313", 96: "n01843383", 100: "n01860187", 130: "n02007558"},
    **{144: "n02051845", 145: "n02056570", 155: "n02086240", 159: "n02087394", 162: "n02088364"},
    **{167: "n02089973", 182: "n02093754", 193: "n02096294", 207: "n02099601", 217: "n02102040"},
    **{229: "n02105641", 258: "n02111889", 273: "n02115641", 281: "n02123045", 282: "n02123159"},
    **{283: "n02123394", 284: "n02123597", 285: "n02124075", 287: "n02127052", 289: "n02128757"},
    **{290: "n02128925", 291: "n02129165", 292: "n02129604", 309: "n02206856", 482: "n02979186"},
    **{491: "n03000684", 497: "n03028079", 566: "n03394916", 569: "n03417042", 571: "n03425413"},
    **{574: "n03445777", 599: "n03530642", 701: "n03888257", 779: "n04146614", 943: "n07718472"},
    **{945: "n07720875", 948: "n07742313", 949: "n07745940", 950: "n07747607", 951: "n07749582"},
    **{952: "n07753113", 953: "n07753275", 954: "n07753592", 957: "n07768694", 986: "n12057211"},
    **{987: "n12144580"},
}

# position = label; the MTT family's subsets
SUBSETS: dict[str, tuple[int, ...]] = {
    "imagenette": (0, 217, 482, 491, 497, 566, 569, 571, 574, 701),
    "imagewoof": (193, 182, 258, 162, 155, 167, 159, 273, 207, 229),
    "imagemeow": (281, 282, 283, 284, 285, 291, 292, 290, 289, 287),
    "imagesquawk": (84, 130, 88, 144, 145, 22, 96, 9, 100, 89),
    "imagefruit": (953, 954, 949, 950, 951, 957, 952, 945, 943, 948),
    "imageyellow": (309, 986, 954, 951, 987, 779, 599, 291, 72, 11),
}


def subset_wnids(name: str) -> list[str]:
    """Return a subset's WordNet ids (the names of its folders) in label order."""
    return [_WNIDS[index] for index in SUBSETS[name]]
