"""A distilled set as DD-Ranking's evaluators read it: images.pt, labels.pt, lr.pt and ddranking.yaml.

DD-Ranking (Li et al. 2025, arXiv 2505.13300; ``pip install ddranking``) is an outside judge. Its version
0.2.0, which this follows, preprocesses the test images by itself: a set has to be preprocessed alike, by the
constants of CIFAR-10 for both CIFARs, by those of ImageNet for all others, or by kornia's ZCA.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsdistill.data.constants import CONSTANTS, IMAGENET_CONSTANTS
from dsdistill.data.preprocess import Standardise
from dsdistill.errors import UserError
from dsdistill.files import new_folder
from dsdistill.networks.convnet import depth_for
from dsdistill.protocol import Protocol, load_protocol
from dsdistill.storage.set_file import read
from dsdistill.synthetic.distilled import DistilledDataset

IMAGES, LABELS, LR, CONFIG = "images.pt", "labels.pt", "lr.pt", "ddranking.yaml"


@dataclass(frozen=True)
class _Known:
    """A data set that DD-Ranking has a loader for."""

    name: str
    constants: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET_CONSTANTS
    size: int | None = None
    """Pixels a side of its test images; None where they are resized to the set's."""
    zca: bool = False
    """Whether it whitens pixels in [0, 1]; it whitens those of ImageNet after standardising them."""


_KNOWN = {
    "cifar10": _Known("CIFAR10", CONSTANTS["cifar10"], 32, zca=True),
    "cifar100": _Known("CIFAR100", CONSTANTS["cifar10"], 32, zca=True),
    "tiny-imagenet": _Known("TinyImageNet", size=64, zca=True),
    "imagenette": _Known("ImageNette"),
    "imagewoof": _Known("ImageWoof"),
    "imagemeow": _Known("ImageMeow"),
    "imagesquawk": _Known("ImageSquawk"),
    "imagefruit": _Known("ImageFruit"),
    "imageyellow": _Known("ImageYellow"),
    "imagenet": _Known("ImageNet1K"),
}
# Where it knows the accuracy of the whole data set and need not train on it.
_WHOLE_KNOWN = ("ImageNet1K-ResNet-18-BN", "TinyImageNet-ResNet-18-BN")


def export_ddranking(path: str | Path, folder: str | Path, protocol: str | Path | None = None) -> list[str]:
    """Write a set as four files that DD-Ranking's evaluators read.

    ``images.pt`` is float32 [N,3,H,W], class-major, decoded where the set is a multi-formation: standardised
    by DD-Ranking's constants for the data set, or whitened where the set is. ``labels.pt`` is float32 logits
    [N,K] where the set has soft labels, else int64 [N]. ``lr.pt`` is the rate that students start at, a
    float32. ``ddranking.yaml`` is the evaluators' configuration.

    Args:
        path: the set.
        folder: made here, whole or not at all; it must not exist or be empty.
        protocol: name or TOML file of how students are trained; default the one the file names, else dm.

    Returns:
        sentences about what DD-Ranking cannot do with this set, or cannot do as the protocol says.

    Raises:
        UserError: as `storage.read`; images that cannot be given three channels, be whitened as DD-Ranking
            does it, or are not as many for every class; an unknown protocol; the folder holds something or
            cannot be written.
    """
    dataset = DistilledDataset(read(path), "unit")
    chosen = load_protocol(protocol or str(dataset.attributes.get("protocol", "dm")))
    name = str(dataset.attributes.get("dataset", ""))
    known = _KNOWN.get(name)
    images = _images(dataset, known)
    soft = dataset.soft_labels is not None
    labels = dataset.labels if dataset.soft_labels is None else dataset.soft_labels
    rate = chosen.learning_rate(dataset.lr)
    config, notes = _config(dataset, known.name if known else name, chosen)
    with new_folder(folder) as part:
        for file, tensor in ((IMAGES, images), (LABELS, labels), (LR, torch.tensor(rate))):
            buffer = io.BytesIO()  # torch raises no OSError where a disk is full
            torch.save(tensor.contiguous(), buffer)
            (part / file).write_bytes(buffer.getbuffer())
        (part / CONFIG).write_text(_head(soft, config) + _yaml(config), encoding="utf-8")
    return [*_loading(name, known, images.shape[-1]), *([_NO_SOFT] if soft else []), *notes]


def _images(dataset: DistilledDataset, known: _Known | None) -> Tensor:
    unit = dataset.images
    if (channels := unit.shape[1]) not in (1, 3):
        raise UserError(
            f"DD-Ranking takes images of 3 channels, the set has {channels}; export it as .pt instead"
        )
    if dataset.preprocess.kind == "zca":
        if channels == 1:
            raise UserError(
                "DD-Ranking whitens 3 channels, the set is whitened in 1; distil with --channels 3"
            )
        if known and not known.zca:
            raise UserError(
                f"DD-Ranking does not whiten {known.name} as this set is; distil it without --zca"
            )
        return dataset.preprocess(unit)
    if known:
        return Standardise.of(*known.constants)(unit.expand(-1, 3, -1, -1))
    return dataset.preprocess(unit).expand(-1, 3, -1, -1)


def _loading(name: str, known: _Known | None, size: int) -> list[str]:
    if known is None:
        named = f"the data set {name!r}" if name else "the data set, which the file does not name"
        return [f"DD-Ranking 0.2.0 has no loader for {named}; the images have the set's own preprocessing"]
    if known.size not in (None, size):
        return [f"DD-Ranking 0.2.0 tests on {known.name} at {known.size} pixels, the set has {size}"]
    return []


_NO_SOFT = f"DD-Ranking 0.2.0 cannot score stored soft labels; its hard-label evaluator does without {LABELS}"

# The configuration ------------------------------------------------------------------------------------------


def _config(dataset: DistilledDataset, name: str, protocol: Protocol) -> tuple[dict[str, Any], list[str]]:
    """Say how students are trained in the words of DD-Ranking's evaluators, and what they cannot do."""
    soft = dataset.soft_labels is not None
    size = tuple(dataset.images.shape[2:])
    asked = str(dataset.attributes.get("network") or protocol.student)
    network = model_name(asked, size[-1])
    model = network or f"ConvNet-{depth_for(size[-1])}"
    notes = [] if network else [f"DD-Ranking has no network {asked!r}; {CONFIG} names {model}"]
    step, lost = _step(protocol)
    augmentation = protocol.augmentation_for(mirror=True)  # true of every data set it can load
    if augmentation.operators and augmentation.rule != "single":
        lost.append("its augmentation (one operator a batch instead)")
    if protocol.cutmix:
        lost.append("CutMix of labels (left out)")
    if lost:
        notes.append(f"DD-Ranking cannot train as protocol {protocol.name} says: {', '.join(lost)}")

    listed = augmentation.operators
    config: dict[str, Any] = {
        "dataset": name,
        "real_data_path": "./dataset/",
        "ipc": _ipc(dataset),
        "im_size": list(size),
        "model_name": model,
        "use_torchvision": False,
        "data_aug_func": "dsa" if listed else None,
        # It draws from all six operators: those not listed do nothing, but for color, which cannot be undone.
        "aug_params": {
            "flip": augmentation.flip_prob if "flip" in listed else 0.0,
            "rotate": augmentation.rotate if "rotate" in listed else 0.0,
            "saturation": augmentation.saturation,
            "brightness": augmentation.brightness,
            "contrast": augmentation.contrast,
            "scale": augmentation.scale if "scale" in listed else 1.0,
            "crop": augmentation.crop_ratio if "crop" in listed else 0.0,
            "cutout": augmentation.cutout_ratio if "cutout" in listed else 0.0,
        },
        "use_zca": dataset.preprocess.kind == "zca",
        "custom_train_trans": None,
        "custom_val_trans": None,
        "optimizer": protocol.optimiser,
        "lr_scheduler": "step",
        "step_size": step,
        "weight_decay": protocol.weight_decay,
        "momentum": protocol.momentum,
        "num_eval": protocol.repeats,
        "num_epochs": protocol.epochs,
        "syn_batch_size": protocol.batch_size,
        "real_batch_size": 256,
        "num_workers": 0,
        "device": "cuda",
        "dist": False,
        "eval_full_data": f"{name}-{model}" not in _WHOLE_KNOWN,
        "random_data_path": None,
        "random_data_format": "tensor",
        "save_path": "./scores.csv",
    }
    if soft:
        config |= {
            "label_type": "soft",
            "soft_label_mode": "S",
            "soft_label_criterion": "sce",
            "loss_fn_kwargs": {"temperature": 1.0, "scale_loss": False},
            "use_aug_for_hard": True,
            "stu_use_torchvision": False,
            "tea_use_torchvision": False,
            "teacher_dir": "./teacher_models",
            "teacher_model_names": [model],
            "batch_size": protocol.batch_size,
        }
    return config, notes


def _ipc(dataset: DistilledDataset) -> int:
    """Return the images of a class, which DD-Ranking takes of random ones too: as many as are stored.

    With soft labels it also makes the hard ones from this number, so it has to be that of training images.
    """
    counts = dataset.stored
    if (low := int(counts.min())) != (high := int(counts.max())):
        raise UserError(
            f"DD-Ranking takes as many images for every class, the set has {low} to {high}; "
            "export it as .pt instead"
        )
    return low if dataset.soft_labels is None else len(dataset) // len(dataset.classes)


def _step(protocol: Protocol) -> tuple[int, list[str]]:
    """Return after how many epochs the rate is divided by 10, again and again, and what that is not."""
    epochs, drops = protocol.epochs, protocol.drop_at
    same = protocol.momentum_after_drop in (None, protocol.momentum)
    if not drops:
        return epochs, []
    if len(drops) == 1 and drops[0] >= 0.5 and protocol.drop_factor == 0.1 and same:
        return max(1, math.floor(round(epochs * drops[0], 9))), []
    step = max(1, epochs // 2)
    return step, [f"its schedule (the rate is divided by 10 after {step} epochs instead)"]


_NETWORKS = {"mlp": "MLP", "lenet": "LeNet", "alexnet": "AlexNet", "vgg11": "VGG-11", "resnet18": "ResNet-18"}


def model_name(network: str, size: int) -> str | None:
    """Return what DD-Ranking calls a network: ConvNet-3-BN for convnet3-batch; None where it has none."""
    library, colon, model = network.partition(":")
    if colon:
        return model if library in ("torchvision", "timm") else None
    stem, dash, norm = network.partition("-")
    depth = re.fullmatch(r"convnet([1-9]?)", stem)
    name = f"ConvNet-{depth[1] or depth_for(size)}" if depth else _NETWORKS.get(stem)
    if name is None or (dash and ("-" not in name or norm not in ("instance", "batch"))):
        return None
    return f"{name}-BN" if norm == "batch" else name


def _head(soft: bool, config: Mapping[str, Any]) -> str:
    whole = _WHOLE.format(**config) if config["eval_full_data"] else ""
    labels = "" if soft else f' hard_labels=torch.load("{LABELS}"),'
    return f"""\
# Written by dsdistill for DD-Ranking 0.2.0. In this folder, with the data set in real_data_path:
#
#     from ddranking.metrics import LabelRobustScoreHard, hard_label
#     hard_label.save_results = lambda *_: None   # else it fails when all training is done
#     metric = LabelRobustScoreHard(Config.from_file("{CONFIG}"))
#     metric.compute_metrics(
#         image_tensor=torch.load("{IMAGES}"),{labels} syn_lr=torch.load("{LR}")
#     )
#
{whole}# It computes LRS from percents: divide HLR and IOR by 100 and put them into
# dsdistill.evaluation.scores.label_robust_score instead.
"""


_WHOLE = """\
# For eval_full_data it trains on the whole data set num_eval times. To spare that, tell it the accuracy, in
# percent: ddranking.utils.REAL_DATA_ACC_CACHE["{dataset}-{model_name}"] = ... and eval_full_data: false.
#
"""


def _yaml(config: dict[str, Any]) -> str:
    """Write a table as YAML: JSON values after plain keys, which YAML 1.1 reads too but for some floats."""
    return "".join(f"{key}: {_value(value)}\n" for key, value in config.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")  # PyYAML takes 1e-05 for text
    return text
