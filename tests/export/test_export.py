"""PNG folders, .pt files, DD-Ranking's files and the picture of a set."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dsdistill.data.preprocess import ZCA, Standardise, from_state
from dsdistill.errors import UserError
from dsdistill.export import picture
from dsdistill.export.ddranking import export_ddranking, model_name
from dsdistill.export.hdf5 import export_h5
from dsdistill.export.png import export_png
from dsdistill.export.pt import export_pt
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.multi_formation import MultiFormation, decode
from tests.helpers.cli import refused, succeed


def written(path: Path, channels: int = 3, **fields: object) -> DistilledSet:
    images = torch.rand(6, channels, 5, 7, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    values: dict = {
        "images": images,
        "labels": torch.tensor([0, 0, 1, 1, 1, 2]),
        "classes": ("plane", "car", "bird"),
        "preprocess": Standardise(torch.full((channels,), 0.5), torch.full((channels,), 0.25)),
    }
    distilled = DistilledSet(**(values | fields))
    set_file.write(path, distilled)
    return distilled


def as_bytes(images: torch.Tensor) -> np.ndarray:
    return np.rint(np.clip(images.double().numpy(), 0, 1) * 255).astype(np.uint8)


# PNG --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_png_folder_holds_every_image(tmp_path: Path, channels: int) -> None:
    distilled = written(tmp_path / "set.h5", channels)
    sentence = export_png(tmp_path / "set.h5", tmp_path / "out")
    names = sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.png"))
    assert names == ["bird/0.png", "car/0.png", "car/1.png", "car/2.png", "plane/0.png", "plane/1.png"]
    for name, index in (("plane/1.png", 1), ("car/2.png", 4), ("bird/0.png", 5)):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.mode == {1: "L", 3: "RGB"}[channels]
            pixels = np.asarray(image).reshape(5, 7, channels).transpose(2, 0, 1)
        np.testing.assert_array_equal(pixels, as_bytes(distilled.images[index]))

    images = distilled.images.double().numpy()
    error = np.abs(images - as_bytes(distilled.images) / 255)
    assert f"{np.mean((images < 0) | (images > 1)):.2%}" in sentence
    assert f"largest error is {error.max():.4f}" in sentence
    assert f"rms {np.sqrt((error**2).mean()):.4f}" in sentence


def test_labels_csv_keeps_the_label_order(tmp_path: Path) -> None:
    written(tmp_path / "set.h5")
    export_png(tmp_path / "set.h5", tmp_path / "out")
    with open(tmp_path / "out" / "labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == [0, 0, 1, 1, 1, 2]
    assert rows[4] == {"file": "car/2.png", "label": "1", "class": "car"}


def test_indices_have_as_many_digits_as_they_need(tmp_path: Path) -> None:
    images, labels = torch.zeros(11, 3, 2, 2), torch.zeros(11, dtype=torch.int64)
    written(tmp_path / "set.h5", images=images, labels=labels, classes=("a",))
    export_png(tmp_path / "set.h5", tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out" / "a").iterdir())[-1] == "10.png"
    assert (tmp_path / "out" / "a" / "00.png").exists()


def test_class_names_become_safe_folders(tmp_path: Path) -> None:
    classes = ("../etc", "a/b", "a_b", "A_B", "con", "", "猫", "labels.csv", "x" * 300)
    written(
        tmp_path / "set.h5",
        images=torch.zeros(len(classes), 3, 2, 2),
        labels=torch.arange(len(classes)),
        classes=classes,
    )
    export_png(tmp_path / "set.h5", tmp_path / "out")
    folders = [folder.name for folder in (tmp_path / "out").iterdir() if folder.is_dir()]
    assert len({name.lower() for name in folders}) == len(classes)
    assert {"etc", "a_b", "猫"} <= set(folders)
    assert "con" not in folders
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "set.h5"]


def test_png_refusals_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "two.h5", channels=2)
    with pytest.raises(UserError, match="1 or 3 channels"):
        export_png(tmp_path / "two.h5", tmp_path / "out")
    written(tmp_path / "set.h5")
    with pytest.raises(UserError, match="mkdir -p"):
        export_png(tmp_path / "set.h5", tmp_path / "no" / "out")
    with pytest.raises(UserError, match="not an empty folder"):
        export_png(tmp_path / "set.h5", tmp_path / "two.h5")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.png").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        export_png(tmp_path / "set.h5", tmp_path / "full")

    def full(self: Image.Image, *args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(UserError, match="No space left"):
            export_png(tmp_path / "set.h5", tmp_path / "out")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["full", "set.h5", "two.h5"]
    (tmp_path / "empty").mkdir()
    export_png(tmp_path / "set.h5", tmp_path / "empty")
    assert (tmp_path / "empty" / "car").is_dir()


# .pt --------------------------------------------------------------------------------------------------------


def test_pt_is_plain_tensors(tmp_path: Path) -> None:
    distilled = written(tmp_path / "set.h5", soft_labels=torch.arange(18.0).reshape(6, 3))
    export_pt(tmp_path / "set.h5", tmp_path / "set.pt")
    content = torch.load(tmp_path / "set.pt", weights_only=True)
    torch.testing.assert_close(content["images"], (distilled.images - 0.5) / 0.25)
    assert torch.equal(content["labels"], distilled.labels)
    assert torch.equal(content["soft_labels"], torch.arange(18.0).reshape(6, 3))
    assert content["classes"] == ["plane", "car", "bird"]
    assert (content["space"], content["preprocess"]) == ("network", "standardise")
    torch.testing.assert_close(content["images"] * content["std"][0] + content["mean"][0], distilled.images)

    export_pt(tmp_path / "set.h5", tmp_path / "set.pt", space="unit")
    assert torch.equal(torch.load(tmp_path / "set.pt", weights_only=True)["images"], distilled.images)
    assert sorted(os.listdir(tmp_path)) == ["set.h5", "set.pt"]


def test_pt_of_a_whitened_set(tmp_path: Path) -> None:
    state = {"mean": torch.zeros(105), "matrix": torch.eye(105) * 2, "eps": torch.tensor(0.1)}
    distilled = written(tmp_path / "set.h5", preprocess=from_state("zca", state))
    export_pt(tmp_path / "set.h5", tmp_path / "set.pt")
    content = torch.load(tmp_path / "set.pt", weights_only=True)
    assert content["preprocess"] == "zca"
    assert "soft_labels" not in content
    whitened = (distilled.images.flatten(1) - content["mean"]) @ content["matrix"]
    torch.testing.assert_close(content["images"].flatten(1), whitened)


def test_a_multi_formation_is_decoded_in_pt_and_stored_in_png(tmp_path: Path) -> None:
    soft, multi_formation = torch.arange(18.0).reshape(6, 3), MultiFormation(factor=2)
    distilled = written(tmp_path / "set.h5", soft_labels=soft, multi_formation=multi_formation)
    export_pt(tmp_path / "set.h5", tmp_path / "set.pt", space="unit")
    content = torch.load(tmp_path / "set.pt", weights_only=True)
    assert content["labels"].tolist() == [0] * 8 + [1] * 12 + [2] * 4
    assert torch.equal(content["images"][8:20], decode(distilled.images[2:5], multi_formation))
    assert torch.equal(content["soft_labels"][8:11], soft[2:5])

    assert "export a .pt" in export_png(tmp_path / "set.h5", tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 6
    written(tmp_path / "set.h5")
    assert "export a .pt" not in export_png(tmp_path / "set.h5", tmp_path / "plain")


def test_pt_refusals(tmp_path: Path) -> None:
    written(tmp_path / "set.h5")
    with pytest.raises(UserError, match="mkdir -p"):
        export_pt(tmp_path / "set.h5", tmp_path / "no" / "set.pt")
    for taken in ("", "set.h5"):  # a folder, and the set itself
        with pytest.raises(UserError, match=r"exists and is no \.pt file"):
            export_pt(tmp_path / "set.h5", tmp_path / taken)
    with pytest.raises(UserError, match="no file at"):
        export_pt(tmp_path / "absent.h5", tmp_path / "set.pt")


# DD-Ranking -------------------------------------------------------------------------------------------------

CIFAR = torch.tensor([[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]]).view(2, 3, 1, 1)


def of_cifar(path: Path, channels: int = 3, **fields: object) -> DistilledSet:
    """Two images a class of three classes, 32 pixels a side, that claim to come from CIFAR-10."""
    images = torch.rand(6, channels, 32, 32, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    about = {"dataset": "cifar10", "protocol": "dsa", "network": "convnet3"}
    values: dict = {"images": images, "labels": torch.tensor([0, 0, 1, 1, 2, 2]), "attributes": about}
    return written(path, channels, **(values | fields))


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

    def full(self: Path, *args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(UserError, match="No space left"):
            export_ddranking(tmp_path / "set.h5", tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["full", "set.h5", "two.h5", "uneven.h5"]


def test_the_export_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_cifar(tmp_path / "set.h5")
    out, err = succeed(capsys, "export", tmp_path / "set.h5", "--to", "ddranking", "-o", tmp_path / "out")
    assert out == f"wrote {tmp_path / 'out'}\n"
    assert err == ""
    assert (tmp_path / "out" / "images.pt").exists()
    _, err = succeed(
        capsys, "export", tmp_path / "set.h5", tmp_path / "idc", "--to", "ddranking", "--protocol", "idc"
    )
    assert "CutMix" in err
    succeed(capsys, "export", tmp_path / "set.h5", "-o", tmp_path / "set.pt")
    assert "images" in torch.load(tmp_path / "set.pt", weights_only=True)
    succeed(capsys, "export", tmp_path / "set.h5", "--to", "png", "-o", tmp_path / "png")
    assert (tmp_path / "png" / "labels.csv").exists()
    _, err = succeed(capsys, "export", tmp_path / "set.h5", tmp_path / "small.h5", "--dtype", "float16")
    assert "float16: the largest error" in err
    assert set_file.describe(tmp_path / "small.h5").dtype == "float16"

    words = "export", tmp_path / "set.h5"
    assert "did you mean 'ddranking'" in refused(capsys, *words, tmp_path / "no", "--to", "dd-ranking")
    assert "name one output" in refused(capsys, *words)
    assert "name one output" in refused(capsys, *words, tmp_path / "no", "-o", tmp_path / "no")
    assert "not an empty folder" in refused(capsys, *words, "--to", "ddranking", "-o", tmp_path / "out")
    assert not (tmp_path / "no").exists()


# Fewer bytes ------------------------------------------------------------------------------------------------


def test_pixels_are_stored_in_fewer_bytes(tmp_path: Path) -> None:
    path, small, half = (tmp_path / name for name in ("set.h5", "small.h5", "half.h5"))
    made = written(
        path,
        soft_labels=torch.rand(6, 3),
        multi_formation=MultiFormation(factor=2),
        attributes={"method": "idc", "lr": 0.02},
    )
    set_file.append_result(path, {"accuracy": 50.0})
    error = (made.images - torch.from_numpy(as_bytes(made.images)).float() / 255).abs().max()
    said = export_h5(path, small, "uint8")
    assert f"uint8: the largest error of a pixel is {float(error):.2g}, where white is 1" in said
    found = set_file.read(small)
    assert np.array_equal(np.rint(found.images.numpy() * 255), as_bytes(made.images))
    assert torch.equal(found.soft_labels, made.soft_labels)  # type: ignore[arg-type]
    assert (found.multi_formation, found.attributes) == (made.multi_formation, set_file.read(path).attributes)
    assert set_file.results(small) == []  # they were those of other pixels
    assert set_file.describe(small).image_bytes < set_file.describe(path).image_bytes / 2
    assert "float16" in export_h5(path, half, "float16")
    assert torch.equal(set_file.read(half).images, made.images.half().float())


def test_a_set_is_not_replaced_by_its_own_export(tmp_path: Path) -> None:
    made = written(tmp_path / "set.h5")
    with pytest.raises(UserError, match="is the set itself"):
        export_h5(tmp_path / "set.h5", tmp_path / "sub" / ".." / "set.h5", "uint8")
    with pytest.raises(UserError, match="unknown storage dtype 'int4'"):
        export_h5(tmp_path / "set.h5", tmp_path / "new.h5", "int4")  # type: ignore[arg-type]
    written(tmp_path / "other.h5")
    with pytest.raises(UserError, match="exists"):
        export_h5(tmp_path / "set.h5", tmp_path / "other.h5", "uint8")
    assert set_file.describe(tmp_path / "other.h5").dtype == "float32"
    assert torch.equal(set_file.read(tmp_path / "set.h5").images, made.images)
    assert not (tmp_path / "new.h5").exists()


# The picture ------------------------------------------------------------------------------------------------


def drawn(path: Path, *arguments: object, **options: object) -> np.ndarray:
    picture.write_grid(*arguments, path, **options)  # type: ignore[arg-type]
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def contains(page: np.ndarray, tile: np.ndarray) -> bool:
    """Whether a tile is in the page exactly."""
    windows = np.lib.stride_tricks.sliding_window_view(page[..., 0], tile.shape[:2])
    corners = (windows[..., 0, 0] == tile[0, 0, 0]) & (windows[..., -1, -1] == tile[-1, -1, 0])
    rows, columns = np.nonzero(corners)
    height, width = tile.shape[:2]
    return any(
        np.array_equal(page[y : y + height, x : x + width], tile) for y, x in zip(rows, columns, strict=True)
    )


SHAPES = [((3, 8, 8), 8), ((1, 28, 28), 2), ((3, 20, 30), 2), ((2, 90, 70), 1)]


@pytest.mark.parametrize(("shape", "factor"), SHAPES)
def test_every_image_is_there_pixel_for_pixel(tmp_path: Path, shape: tuple[int, ...], factor: int) -> None:
    images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    page = drawn(tmp_path / "grid.png", images, torch.tensor([1, 0, 1, 0]), ["one", "two"], title="A title")
    for image in images:
        colour = image if shape[0] == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
        tile = as_bytes(colour).transpose(1, 2, 0).repeat(factor, 0).repeat(factor, 1)
        assert contains(page, tile)


def test_rows_are_classes_with_names(tmp_path: Path) -> None:
    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    images[0, 0], images[1, :2] = 1, 0  # red and blue
    page = drawn(tmp_path / "grid.png", images, torch.tensor([2, 0]), ["a", "absent", "c"]).astype(int)
    red = np.argwhere((page == (255, 0, 0)).all(-1))
    blue = np.argwhere((page == (0, 0, 255)).all(-1))
    assert len(red) == len(blue) == 64 * 64
    assert blue[:, 0].max() < red[:, 0].min()  # class 0 above class 2, nothing between
    assert red[:, 0].min() - blue[:, 0].max() < 8
    dark = np.argwhere(page.sum(-1) < 200)  # letters, left of the images, each beside its row
    assert len(dark)
    assert dark[:, 1].max() < red[:, 1].min()
    assert {int(y > blue[:, 0].max()) for y in dark[:, 0]} == {0, 1}


def test_large_sets_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = []
    render = picture._render
    monkeypatch.setattr(picture, "_render", lambda *a: (notes.append(a[-1]), render(*a))[1])
    labels = torch.arange(60).repeat_interleave(23)
    page = drawn(
        tmp_path / "grid.png", torch.zeros(len(labels), 1, 2, 2), labels, [str(i) for i in range(60)]
    )
    drawn(tmp_path / "grid.png", torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), ["a", "b"])
    assert notes == ["showing 50 of 60 classes, 20 of up to 23 images a class", ""]
    assert page.shape[0] > 50 * 64
    assert 20 * 64 < page.shape[1] < 21 * 66 + 100


def test_large_images_are_reduced(tmp_path: Path) -> None:
    page = drawn(tmp_path / "grid.png", torch.full((1, 3, 600, 300), 0.2), torch.tensor([0]), ["a"])
    assert (page == 51).all(-1).sum() == 128 * 64


def test_odd_names_and_no_images(tmp_path: Path) -> None:
    names = ["$x^2$", "猫", "_" * 200, "", "\\frac{"]
    page = drawn(tmp_path / "grid.png", torch.zeros(5, 3, 4, 4), torch.arange(5), names, title="$50 & 猫 {")
    assert page.shape[1] < 600
    with pytest.raises(UserError, match="no images"):
        picture.write_grid(torch.zeros(0, 3, 4, 4), torch.arange(0), ["a"], tmp_path / "none.png")
    with pytest.raises(UserError, match="mkdir -p"):
        picture.write_grid(torch.zeros(1, 3, 4, 4), torch.arange(1), ["a"], tmp_path / "no" / "grid.png")
    assert [file.name for file in tmp_path.iterdir()] == ["grid.png"]


def test_pictures_leave_pyplot_alone(tmp_path: Path) -> None:
    from matplotlib import _pylab_helpers

    drawn(tmp_path / "grid.png", torch.zeros(1, 3, 4, 4), torch.arange(1), ["a"])
    assert not _pylab_helpers.Gcf.figs
