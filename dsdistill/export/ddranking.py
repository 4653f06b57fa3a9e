"""A distilled set as DD-Ranking's evaluators read it: images.pt, labels.pt, lr.pt and ddranking.yaml.

DD-Ranking (Li et al. 2025, arXiv 2505.13300; ``pip install ddranking``) is an independent evaluation. This
module follows its version 0.2.0, which preprocesses the test images itself. A set has to be preprocessed in
the same way: by the constants of CIFAR-10 for both CIFARs, of ImageNet for all others, or by kornia's ZCA.
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

from dsdistill.config.data_names import data_name
from dsdistill.config.unlabelled import check_labelled
from dsdistill.data.constants import CONSTANTS, IMAGENET_CONSTANTS
from dsdistill.data.preprocess import Standardise
from dsdistill.errors import UserError
from dsdistill.files import check_new_folder, expanded, new_folder, write_new
from dsdistill.networks.convnet import depth_for
from dsdistill.protocol import Protocol, load_protocol
from dsdistill.storage.origin import protocol_of
from dsdistill.storage.set_file import read
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.extra_labels import left_out
from dsdistill.text import plain

IMAGES, LABELS, LR, CONFIG = "images.pt", "labels.pt", "lr.pt", "ddranking.yaml"


@dataclass(frozen=True)
class _Loader:
    """A data set that DD-Ranking has a loader for."""

    name: str
    constants: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET_CONSTANTS
    size: int | None = None
    """Pixels a side of the test images; None if they are resized to the size of the set."""
    zca: bool = False
    """Whether the loader whitens pixels in [0, 1]; that of ImageNet standardises them first."""


_LOADERS = {
    "cifar10": _Loader("CIFAR10", CONSTANTS["cifar10"], 32, zca=True),
    "cifar100": _Loader("CIFAR100", CONSTANTS["cifar10"], 32, zca=True),
    "tiny-imagenet": _Loader("TinyImageNet", size=64, zca=True),
    "imagenette": _Loader("ImageNette"),
    "imagewoof": _Loader("ImageWoof"),
    "imagemeow": _Loader("ImageMeow"),
    "imagesquawk": _Loader("ImageSquawk"),
    "imagefruit": _Loader("ImageFruit"),
    "imageyellow": _Loader("ImageYellow"),
    "imagenet": _Loader("ImageNet1K"),
}
# DD-Ranking has the accuracy of the full data set for these, so it need not train on it.
_FULL_ACCURACIES = ("ImageNet1K-ResNet-18-BN", "TinyImageNet-ResNet-18-BN")


def export_ddranking(path: str | Path, folder: str | Path, protocol: str | Path | None = None) -> list[str]:
    """Write a set as four files that DD-Ranking's evaluators read.

    ``images.pt`` is float32 [N,3,H,W], class-major: training images, standardised by DD-Ranking's constants
    for the data set, or whitened if the set is. ``labels.pt`` is float32 logits [N,K] if the set has soft
    labels, else int64 [N]. ``lr.pt`` is the initial learning rate of students, a float32. ``ddranking.yaml``
    is the evaluators' configuration.

    Args:
        path: the set.
        folder: the folder to create, complete or not at all; it must not exist or be empty.
        protocol: name or TOML file of the training of students; default the one that the file names, else dm.

    Returns:
        sentences about what DD-Ranking cannot do with this set or under this protocol.

    Raises:
        UserError: as `set_file.read`; the images cannot have three channels, cannot be whitened as DD-Ranking
            does, or differ in number between classes; the protocol is unknown; or the folder is not empty or
            cannot be written.
    """
    path, folder = expanded(path), expanded(folder)
    check_new_folder(folder)
    dataset = DistilledDataset(read(path), "unit")
    check_labelled(dataset.classes, str(path), "DD-Ranking trains classifiers", "export it as .pt")
    name = plain(data_name(str(dataset.attributes.get("dataset", ""))))  # it goes into a comment, too
    training = load_protocol(protocol or protocol_of(path, dataset.attributes), name, dataset.ipc)
    loader = _LOADERS.get(name)
    images = _images(dataset, loader)
    soft = dataset.soft_labels is not None
    labels = dataset.labels if dataset.soft_labels is None else dataset.soft_labels
    rate = training.learning_rate(dataset.lr)
    config, notes = _config(dataset, loader.name if loader else name, training)
    with new_folder(folder) as part:
        for file, tensor in ((IMAGES, images), (LABELS, labels), (LR, torch.tensor(rate))):
            buffer = io.BytesIO()  # torch raises no OSError where a disk is full
            torch.save(tensor.contiguous(), buffer)
            write_new(part / file, buffer.getbuffer())
        write_new(part / CONFIG, (_head(soft, config) + _yaml(config)).encode())
    dropped = left_out(dataset, ("soft_labels",))
    return [*_loading(name, loader, images.shape[-1]), *([_NO_SOFT] if soft else []), *dropped, *notes]


def _images(dataset: DistilledDataset, loader: _Loader | None) -> Tensor:
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
        if loader and not loader.zca:
            raise UserError(
                f"DD-Ranking does not whiten {loader.name} as this set is; distil it without --zca"
            )
        return dataset.preprocess(unit)
    if loader:
        return Standardise.of(*loader.constants)(unit.expand(-1, 3, -1, -1))
    return dataset.preprocess(unit).expand(-1, 3, -1, -1)


def _loading(name: str, loader: _Loader | None, size: int) -> list[str]:
    if loader is None:
        data_set = f"the data set {name!r}" if name else "the data set, which the file does not name"
        return [f"DD-Ranking 0.2.0 has no loader for {data_set}; the images have the set's own preprocessing"]
    if loader.size not in (None, size):
        return [f"DD-Ranking 0.2.0 tests on {loader.name} at {loader.size} pixels, the set has {size}"]
    return []


_NO_SOFT = f"DD-Ranking 0.2.0 cannot score stored soft labels; its hard-label evaluator does without {LABELS}"

# The configuration ------------------------------------------------------------------------------------------


def _config(dataset: DistilledDataset, name: str, protocol: Protocol) -> tuple[dict[str, Any], list[str]]:
    """Return the training of students as options of DD-Ranking's evaluators, and what they cannot do."""
    soft = dataset.soft_labels is not None
    size = tuple(dataset.images.shape[2:])
    student = plain(protocol.student_for(dataset.made_for))
    network = model_name(student, size[-1])
    model = network or f"ConvNet-{depth_for(size[-1])}"
    notes = [] if network else [f"DD-Ranking has no network {student!r}; {CONFIG} names {model}"]
    step, differences = _step(protocol)
    augmentation = protocol.augmentation_for(mirror=True)  # as for every data set that it can load
    if augmentation.operators and augmentation.rule != "single":
        differences.append("its augmentation (one operator a batch instead)")
    if protocol.cutmix:
        differences.append("CutMix of labels (left out)")
    if differences:
        notes.append(f"DD-Ranking cannot train as protocol {protocol.name} says: {', '.join(differences)}")

    operators = augmentation.operators
    config: dict[str, Any] = {
        "dataset": name,
        "real_data_path": "./dataset/",
        "ipc": _ipc(dataset),
        "im_size": list(size),
        "model_name": model,
        "use_torchvision": False,
        "data_aug_func": "dsa" if operators else None,
        # It draws from all six operators: those not listed do nothing, but for color, which cannot be undone.
        "aug_params": {
            "flip": augmentation.flip_prob if "flip" in operators else 0.0,
            "rotate": augmentation.rotate if "rotate" in operators else 0.0,
            "saturation": augmentation.saturation,
            "brightness": augmentation.brightness,
            "contrast": augmentation.contrast,
            "scale": augmentation.scale if "scale" in operators else 1.0,
            "crop": augmentation.crop_ratio if "crop" in operators else 0.0,
            "cutout": augmentation.cutout_ratio if "cutout" in operators else 0.0,
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
        "eval_full_data": f"{name}-{model}" not in _FULL_ACCURACIES,
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
    """Return the images of a class: of stored images, and so of DD-Ranking's random baseline.

    Compensators, which are of no class, are shared out, rounded up. With soft labels DD-Ranking builds hard
    ones from this number, so it is that of training images then.
    """
    counts = dataset.stored if dataset.compensators is None else torch.tensor([dataset.ipc])
    if (low := int(counts.min())) != (high := int(counts.max())):
        raise UserError(
            f"DD-Ranking takes as many images for every class, the set has {low} to {high}; "
            "export it as .pt instead"
        )
    return low if dataset.soft_labels is None else len(dataset) // len(dataset.classes)


def _step(protocol: Protocol) -> tuple[int, list[str]]:
    """Return the epochs between divisions of the rate by 10, and how that differs from the protocol."""
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
    """Return DD-Ranking's name of a network, such as ConvNet-3-BN for convnet3-batch; None if it has none."""
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
    """Write a table as YAML: JSON values after plain keys, which YAML 1.1 reads, except for some floats."""
    return "".join(f"{key}: {_value(value)}\n" for key, value in config.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")  # PyYAML reads 1e-05 as text
    return text
