"""A distilled set as DD-Ranking's evaluators read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml

from dsdistill.data.preprocess import ZCA
from dsdistill.errors import UserError
from dsdistill.export.ddranking import export_ddranking, model_name
from dsdistill.synthetic.multi_formation import MultiFormation, decode
from tests.helpers.exports import of_cifar, written

CIFAR = torch.tensor([[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]]).view(2, 3, 1, 1)


def loaded(folder: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images, labels, lr = (
        torch.load(folder / f"{name}.pt", weights_only=True) for name in ("images", "labels", "lr")
    )
    return images, labels, lr


def configured(folder: Path) -> dict:
    return yaml.safe_load((folder / "ddranking.yaml").read_text())


def test_ddranking_reads_standardised_images_in_order(tmp_path: Path) -> None:
    distilled = of_cifar(tmp_path / "set.h5")
    assert export_ddranking(tmp_path / "set.h5", tmp_path / "out") == []
    assert sorted(os.listdir(tmp_path / "out")) == ["ddranking.yaml", "images.pt", "labels.pt", "lr.pt"]
    assert sorted(os.listdir(tmp_path)) == ["out", "set.h5"]
    images, labels, lr = loaded(tmp_path / "out")
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    mean, std = CIFAR  # not the set's own preprocessing
    torch.testing.assert_close(images, (distilled.images - mean) / std)
    assert torch.equal(labels, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert (lr.shape, lr.dtype) == ((), torch.float32)
    assert lr.item() == pytest.approx(0.01)


def test_ddranking_reads_the_protocol_for_the_data_set_and_the_ipc(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'title = ""\nsource = ""\nepochs = 9\n'
        '[[settings]]\nwhen = { dataset = ["cifar10"], ipc_min = 2, ipc_max = 2 }\nset = { epochs = 4 }\n'
    )
    of_cifar(tmp_path / "set.h5")
    export_ddranking(tmp_path / "set.h5", tmp_path / "out", tmp_path / "mine.toml")
    assert configured(tmp_path / "out")["num_epochs"] == 4


def test_names_stay_inside_comments_and_values(tmp_path: Path) -> None:
    nasty = 'folder:/home/anna/pets\nevil: true # \u2028"\x1b[31m'
    about = {"dataset": nasty, "network": "torchvision:resnet18\nworse: true\x85"}
    of_cifar(tmp_path / "set.h5", attributes=about)
    notes = export_ddranking(tmp_path / "set.h5", tmp_path / "out")
    text = (tmp_path / "out" / "ddranking.yaml").read_text()
    outside = [line.partition(":")[0] for line in text.splitlines() if not line.startswith("#")]
    assert all(key.isidentifier() for key in outside)
    config = configured(tmp_path / "out")
    assert {"evil", "worse"}.isdisjoint(config)
    assert config["dataset"].startswith("folder:pets\\nevil: true # ")
    assert config["model_name"] == "resnet18\\nworse: true\\x85"
    assert "/home/anna" not in text + " ".join(notes)


def test_a_protocol_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    of_cifar(tmp_path / "set.h5", attributes={"dataset": "cifar10", "protocol": "mine.toml"})
    with pytest.raises(UserError, match=r"names the protocol mine\.toml, .*; pass --protocol"):
        export_ddranking(tmp_path / "set.h5", tmp_path / "out")
    assert export_ddranking(tmp_path / "set.h5", tmp_path / "out", "dsa") == []


def test_ddranking_is_configured_as_the_protocol_says(tmp_path: Path) -> None:
    of_cifar(tmp_path / "set.h5")
    export_ddranking(tmp_path / "set.h5", tmp_path / "out")
    text = (tmp_path / "out" / "ddranking.yaml").read_text()
    assert 'REAL_DATA_ACC_CACHE["CIFAR10-ConvNet-3"]' in text
    assert "hard_label.save_results = lambda" in text
    config = configured(tmp_path / "out")
    expected = {
        "dataset": "CIFAR10",
        "ipc": 2,
        "im_size": [32, 32],
        "model_name": "ConvNet-3",
        "data_aug_func": "dsa",
        "use_zca": False,
        "custom_train_trans": None,
        "custom_val_trans": None,
        "optimizer": "sgd",
        "lr_scheduler": "step",
        "step_size": 500,
        "weight_decay": 0.0005,
        "momentum": 0.9,
        "num_eval": 5,
        "num_epochs": 1000,
        "syn_batch_size": 256,
        "dist": False,
        "eval_full_data": True,
        "random_data_format": "tensor",
    }
    assert {key: config[key] for key in expected} == expected
    assert config["aug_params"] == {
        "flip": 0.5,
        "rotate": 15.0,
        "saturation": 2.0,
        "brightness": 1.0,
        "contrast": 0.5,
        "scale": 1.2,
        "crop": 0.125,
        "cutout": 0.5,
    }
    assert "soft_label_mode" not in config


def test_small_floats_stay_floats_in_yaml(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('title = "t"\nsource = "s"\nepochs = 30\nweight_decay = 1e-5\naugmentation = "crop"\n')
    of_cifar(tmp_path / "set.h5")
    export_ddranking(tmp_path / "set.h5", tmp_path / "out", mine)
    config = configured(tmp_path / "out")
    assert (config["weight_decay"], config["step_size"]) == (1e-5, 15)
    strengths = {key: config["aug_params"][key] for key in ("crop", "flip", "rotate", "scale", "cutout")}
    assert strengths == {"crop": 0.125, "flip": 0.0, "rotate": 0.0, "scale": 1.0, "cutout": 0.0}


def test_ddranking_gets_grey_images_in_three_channels(tmp_path: Path) -> None:
    distilled = of_cifar(tmp_path / "grey.h5", channels=1)
    export_ddranking(tmp_path / "grey.h5", tmp_path / "out")
    mean, std = CIFAR
    torch.testing.assert_close(
        loaded(tmp_path / "out")[0], (distilled.images.expand(-1, 3, -1, -1) - mean) / std
    )

    about = {"dataset": "fashion-mnist", "network": "convnet3"}
    distilled = of_cifar(tmp_path / "clothes.h5", channels=1, attributes=about)
    (said,) = export_ddranking(tmp_path / "clothes.h5", tmp_path / "clothes")
    assert "no loader for the data set 'fashion-mnist'" in said
    images = loaded(tmp_path / "clothes")[0]
    torch.testing.assert_close(images, ((distilled.images - 0.5) / 0.25).expand(-1, 3, -1, -1))
    assert configured(tmp_path / "clothes")["dataset"] == "fashion-mnist"


def test_ddranking_gets_whitened_images(tmp_path: Path) -> None:
    of_cifar(tmp_path / "plain.h5")
    pixels = torch.randint(0, 256, (8, 3, 4, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    zca = ZCA.fit(pixels)
    about = {"dataset": "cifar10"}
    images = pixels[:6].float() / 255
    of_cifar(tmp_path / "set.h5", images=images, preprocess=zca, attributes=about)
    (said,) = export_ddranking(tmp_path / "set.h5", tmp_path / "out")
    assert "tests on CIFAR10 at 32 pixels, the set has 4" in said
    torch.testing.assert_close(loaded(tmp_path / "out")[0], zca(images))
    assert configured(tmp_path / "out")["use_zca"] is True

    of_cifar(tmp_path / "nette.h5", images=images, preprocess=zca, attributes={"dataset": "imagenette"})
    with pytest.raises(UserError, match="does not whiten ImageNette"):
        export_ddranking(tmp_path / "nette.h5", tmp_path / "nette")
    grey = of_cifar(tmp_path / "grey.h5", channels=1, images=images[:, :1], preprocess=ZCA.fit(pixels[:, :1]))
    assert grey.preprocess.kind == "zca"
    with pytest.raises(UserError, match="whitened in 1"):
        export_ddranking(tmp_path / "grey.h5", tmp_path / "grey")


def test_ddranking_gets_logits_and_decoded_images(tmp_path: Path) -> None:
    soft, multi_formation = torch.arange(18.0).reshape(6, 3), MultiFormation(factor=2)
    about = {"dataset": "cifar10", "protocol": "mtt", "learned_lr": 0.03, "network": "convnet"}
    distilled = of_cifar(
        tmp_path / "soft.h5", soft_labels=soft, multi_formation=multi_formation, attributes=about
    )
    (said,) = export_ddranking(tmp_path / "soft.h5", tmp_path / "soft")
    assert "cannot score stored soft labels" in said
    images, labels, lr = loaded(tmp_path / "soft")
    mean, std = CIFAR
    torch.testing.assert_close(images[:8], (decode(distilled.images[:2], multi_formation) - mean) / std)
    assert labels.shape == (24, 3)
    assert torch.equal(labels, distilled.soft_labels[distilled.decode()[1]])
    assert lr.item() == pytest.approx(0.03)
    config = configured(tmp_path / "soft")
    assert (config["ipc"], config["soft_label_mode"], config["model_name"]) == (8, "S", "ConvNet-3")
    assert config["teacher_model_names"] == ["ConvNet-3"]

    of_cifar(tmp_path / "hard.h5", multi_formation=multi_formation)
    export_ddranking(tmp_path / "hard.h5", tmp_path / "hard")
    assert loaded(tmp_path / "hard")[1].tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert configured(tmp_path / "hard")["ipc"] == 2


def test_ddranking_says_what_it_cannot_do(tmp_path: Path) -> None:
    about = {"dataset": "cifar10", "protocol": "idc", "network": "resnetap10"}
    of_cifar(tmp_path / "set.h5", attributes=about)
    network, protocol = export_ddranking(tmp_path / "set.h5", tmp_path / "out")
    assert "no network 'resnetap10'" in network
    assert "as protocol idc says: its schedule" in protocol
    assert "CutMix" in protocol
    assert configured(tmp_path / "out")["step_size"] == 500


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("convnet", "ConvNet-4"),
        ("convnet3", "ConvNet-3"),
        ("convnet3-instance", "ConvNet-3"),
        ("convnet-batch", "ConvNet-4-BN"),
        ("resnet18-batch", "ResNet-18-BN"),
        ("vgg11", "VGG-11"),
        ("mlp", "MLP"),
        ("timm:resnet10t", "resnet10t"),
        ("alexnet-batch", None),
        ("convnet3-w64", None),
        ("resnet18-ap-batch", None),
        ("resnet10", None),
    ],
)
def test_networks_have_other_names_there(network: str, name: str | None) -> None:
    assert model_name(network, 64) == name


def test_ddranking_refusals_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_cifar(tmp_path / "two.h5", channels=2)
    with pytest.raises(UserError, match="3 channels, the set has 2"):
        export_ddranking(tmp_path / "two.h5", tmp_path / "out")
    written(tmp_path / "uneven.h5")
    with pytest.raises(UserError, match="for every class, the set has 1 to 3"):
        export_ddranking(tmp_path / "uneven.h5", tmp_path / "out")
    of_cifar(tmp_path / "set.h5")
    with pytest.raises(UserError, match="takes the learned lr, but the set stores none"):
        export_ddranking(tmp_path / "set.h5", tmp_path / "out", "mtt")
    with pytest.raises(UserError, match="unknown protocol 'dsaa'; did you mean 'dsa'"):
        export_ddranking(tmp_path / "set.h5", tmp_path / "out", "dsaa")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        export_ddranking(tmp_path / "set.h5", tmp_path / "full")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left"):
            export_ddranking(tmp_path / "set.h5", tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["full", "set.h5", "two.h5", "uneven.h5"]
