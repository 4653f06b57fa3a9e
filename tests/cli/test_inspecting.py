"""The commands info, show, methods, datasets, networks and protocols."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import h5py
import torch
from PIL import Image

from dsdistill.networks import build_network
from dsdistill.storage import expert_writer, set_file
from dsdistill.storage.hdf5 import EXPERTS, LAYOUT, set_attributes
from tests.helpers import cli as cli_helpers
from tests.helpers.cli import Captured, refused, succeed
from tests.helpers.expert_files import FINGERPRINT, NETWORK, metadata, states, training, written
from tests.helpers.storage import make
from tests.helpers.transfer import transferred, write_pretraining_set


def test_info_describes_experts(capsys: cli_helpers.Captured, tmp_path: Path) -> None:
    common = metadata(config='recipe = "my/ncfm.toml"\n')
    path = tmp_path / "pool.h5"
    trained = [
        dataclasses.replace(training(e), accuracy=0.5 + e / 8, machine=f"machine {e % 2}") for e in range(3)
    ]
    pack = common.layout.pack
    experts = ((each, (pack(state) for state in states(e))) for e, each in enumerate(trained))
    expert_writer.write(path, common, experts, 3)
    out, err = cli_helpers.succeed(capsys, "info", path)
    assert not err
    said = dict(line.split(maxsplit=1) for line in out.splitlines())
    parameters = sum(p.numel() for p in build_network(NETWORK, 1, 8, 3).parameters())
    assert said["file"].startswith(f"{path}, structure verified, ")
    assert said["experts"].startswith(f"3 of {NETWORK} ({parameters} parameters, ")
    assert said["kept"] == "epochs  0, 2 to 4, 9"
    assert said["accuracy"] == "50.00 to 75.00 % on training images"
    assert said["images"] == "1x8x8"
    assert said["classes"] == "ball, doll, kite"
    assert (said["dataset"], said["preprocess"], said["recipe"]) == ("toys", "standardise", "ncfm")
    assert (said["seed"], said["seconds"]) == ("7", "0 min 09 s")
    assert (said["machine"], said["fingerprint"]) == ("machine 0; machine 1", FINGERPRINT)


def test_info_says_whether_a_file_holds_scores_of_images(capsys: Captured, tmp_path: Path) -> None:
    common, scores = metadata("convnet2-w6", epochs=(0,)), [torch.tensor([0.5, 1.0])]
    flats = (torch.zeros(common.layout.sizes[0]), torch.zeros(0))
    for name, some in (("scored.h5", scores), ("plain.h5", [])):
        expert_writer.write(tmp_path / name, common, [(training(0), [flats])], 1, some)
        out, _ = succeed(capsys, "info", tmp_path / name)
        assert ("EL2N" in out) == bool(some)


def test_info_shows_accuracies_on_unseen_images_of_a_few_epochs(capsys: Captured, tmp_path: Path) -> None:
    def row(count: int, images: str = "test") -> str:
        path, common = tmp_path / f"{count}.h5", metadata("convnet2-w6", epochs=tuple(range(count)))
        flats = (torch.zeros(common.layout.sizes[0]), torch.zeros(0))
        records = [
            dataclasses.replace(
                training(e), **{f"{images}_accuracy": tuple((n + e) / 100 for n in range(count))}
            )
            for e in (0, 1)
        ]
        expert_writer.write(path, common, [(record, [flats] * count) for record in records], 2)
        lines = succeed(capsys, "info", path)[0].splitlines()
        (found,) = [line for line in lines if "accuracy" in line and "after epoch" in line]
        return found.removeprefix(f"{images} accuracy").strip()

    assert row(2) == row(2, "validation") == "after epoch 0: 0.50 %, 1: 1.50 %"
    listed = row(41).split(", ")
    assert (len(listed), listed[0], listed[-1]) == (9, "after epoch 0: 0.50 %", "40: 40.50 %")


def test_info_refuses_bad_experts_with_their_own_sentence(
    capsys: cli_helpers.Captured, tmp_path: Path
) -> None:
    pool = written(tmp_path / "pool.h5")
    with h5py.File(pool, "r+") as file:
        file.attrs["version"] = 99
    assert "newer dsdistill (format version 99" in cli_helpers.refused(capsys, "info", pool)
    pool.write_bytes(pool.read_bytes()[:2000])
    assert "dsdistill: " in cli_helpers.refused(capsys, "info", pool)
    with h5py.File(pool, "w", libver=LAYOUT) as file:
        set_attributes(file, format=EXPERTS.name, version=1)
    assert f"{pool} is damaged: " in cli_helpers.refused(capsys, "info", pool)


def test_info_says_what_students_learned_after_their_pre_training(capsys: Captured, tmp_path: Path) -> None:
    file = write_pretraining_set(tmp_path / "set.h5")
    transferred(file, epochs=2, steps=2, repeats=1)
    out, _ = succeed(capsys, "info", file)
    _, distilled, scratch = " ".join(out.split()).split("protocol krr-st, ")
    assert distilled.startswith("2 epochs: ")
    assert scratch.startswith("not pre-trained: ")
    assert "then digits, 3.7 % of the labels (50), fine-tune" in scratch


def test_info_and_show_describe_a_set(capsys: Captured, made: Path) -> None:
    out, _ = succeed(capsys, "info", made)
    assert "verified" in out
    assert "10 of 1x8x8, 1 a class" in out
    assert "stored as          8 bits, scaled by image" in out
    out, _ = succeed(capsys, "show", made)
    assert str(made.with_suffix(".png")) in out
    with Image.open(made.with_suffix(".png")) as picture:
        assert picture.width > 8


def test_info_names_the_sizes_of_a_set_and_which_were_evaluated(capsys: Captured, tmp_path: Path) -> None:
    path = tmp_path / "sizes.h5"
    digits = {"classes": tuple(map(str, range(10))), "attributes": {"dataset": "digits", "sizes": "1,2"}}
    set_file.write(path, make(2, 10, 1, **digits))
    brief = ["--networks", "mlp", "--epochs", "1", "--repeats", "1", "--baselines"]
    for words in ((), ("--ipc", "1")):
        succeed(capsys, "evaluate", path, *words, *brief, "")
    out, _ = succeed(capsys, "info", path)
    assert re.search(r"^sizes +1,2$", out, re.M)
    whole, part = re.findall(r"^distilled .*\)(.*)$", out, re.M)
    assert (whole, part) == ("", ", of the first 10 images")
    said = refused(capsys, "evaluate", path, "--ipc", "3")
    assert said.strip().endswith("the set was made for 1 or 2 images of a class, not 3; choose one of these")


def test_info_prints_the_configuration_that_replays_a_set(capsys: Captured, made: Path) -> None:
    out, _ = succeed(capsys, "info", made, "--config")
    again, config = made.parent / "again.h5", made.parent / "again.toml"
    config.write_text(out)
    succeed(capsys, "distill", "--config", config, "-o", again)
    assert torch.equal(set_file.read(again).images, set_file.read(made).images)


def test_methods_and_datasets_are_listed(capsys: Captured) -> None:
    out, _ = succeed(capsys, "methods")
    assert "Zhao & Bilen" in out
    out, _ = succeed(capsys, "methods", "mtt")
    assert tomllib.loads(out)["title"].startswith("MTT")
    out, _ = succeed(capsys, "methods", "ncfm-minmax")
    assert tomllib.loads(out)["title"].startswith("NCFM with its minmax")  # what follows is a comment
    assert "# It begins from ncfm:" in out
    assert "# batch_real = 1024\n" in out
    assert "three blocks and six" in succeed(capsys, "methods", "datadam")[0]
    assert "three blocks and six" in succeed(capsys, "methods", "datadam-paper")[0]
    told = succeed(capsys, "methods", "mtt")[0]
    assert "# Experts: where --experts names none, distill trains them first" in told
    assert "--budget paper (the default on a GPU) takes 100 of 50 epochs; --budget laptop" in told
    assert "# Experts:" not in succeed(capsys, "methods", "dm")[0]
    assert "see dsdistill methods mtt" in refused(capsys, "info", "mtt")
    assert "half of MTT's" in succeed(capsys, "methods", "tesla")[0]
    assert "did you mean 'mtt'" in refused(capsys, "methods", "mttt")
    out, _ = succeed(capsys, "datasets")
    assert "cifar10 " in out
    assert "folder:PATH" in out
    assert "hf:PATH" in out
    assert "In Python, dataset= also takes (images, labels)" in out


def test_networks_protocols_and_the_version_are_told(capsys: Captured) -> None:
    out, _ = succeed(capsys, "networks")
    assert "convnet4-w64-batch" in out
    out, _ = succeed(capsys, "protocols")
    assert "DSA" in out
    assert "tiny-imagenet from IPC 30: epochs = 40 (the code's configuration" in out
    out, _ = succeed(capsys, "protocols", "ncfm")
    assert tomllib.loads(out)["epochs"] == 2000
    assert "did you mean 'dsa'" in refused(capsys, "protocols", "dsaa")
    out, _ = succeed(capsys, "--version")
    assert out.startswith("dsdistill 0.")
