"""The command line: everything wrong is one line and exit code 2."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from dsdistill.storage import hdf5, set_file
from tests.helpers.cli import FAST, TINY, Captured, pictures, refused, succeed

# Words that are wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset", "digit"], "unknown data set 'digit'; did you mean 'digits'?"),
        (["--dataset", "memory:arrays"], "memory:arrays was data in memory, which no file holds"),
        (["--method", "dmm"], "unknown method 'dmm'; did you mean 'dm'?"),
        (["--network", "convnte3"], "did you mean 'convnet3'?"),
        (["--network", "convnet5"], "convnet5 cannot take 8x8 images"),
        (["--set", "protocol=dx"], "unknown protocol 'dx'; did you mean 'dm'?"),
        (["--ipc", "0"], "IPC must be at least 1"),
        (
            ["--ipc", "99999999999999999999"],
            "IPC must be at most 1,000,000, and is larger; choose a smaller --ipc",
        ),
        (
            ["--ipc", "135"],
            "1350 images, more than the 1347 training images of digits; choose a smaller --ipc",
        ),
        (["--ipc", "ten"], "option 'ipc' is 'ten': it takes a whole number"),
        (["--iterations", "-1"], "'iterations' is -1: input should be greater than or equal to 0"),
        (["--seed", "99999999999999999999"], "option 'seed'"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--size", "1" + "0" * 30], "option 'data.size' is an integer of more than 64 bits"),
        (["--ipc", "1" + "0" * 30], "IPC must be at most 1,000,000"),
        (["--ipc", "9" * 4000], "IPC must be at most 1,000,000"),
        (["--set", f"engine.batch_real={10**30}"], "an integer of more than 64 bits"),
        (["--set", "compute.threads=1000000"], "less than or equal to 1024"),
        (["--set", f"{'a.' * 9000}b=1"], "--set takes key=value"),
        (["--size", "0"], "size must lie between 1 and 16384 pixels, not 0"),
        (["--channels", "2"], "channels must be 1 (grey) or 3 (RGB)"),
        (["--datase", "digits"], "--dataset"),
        (["--set", "nonsense"], "--set takes key=value, not 'nonsense'"),
        (["--set", "=3"], "--set takes key=value"),
        (["--set", "optimizer.lr=3"], "unknown option 'optimizer.lr'; did you mean 'optimiser.lr'?"),
        (["--set", "optimiser.rl=3"], "unknown option 'optimiser.rl'; did you mean 'optimiser.lr'?"),
        (["--set", "engine.batch_reel=3"], "did you mean 'engine.batch_real'?"),
        (["--set", "engine.kind=distributions"], "did you mean 'distribution'?"),
        (["--set", "optimiser.lr=fast"], "option 'optimiser.lr' is 'fast': input should be a valid number"),
        (["--set", "compute.compile=maybe"], "input should be 'auto' or input should be a valid boolean"),
        (["--set", "ipc=many"], "option 'ipc' is 'many': it takes a whole number"),
        (["--set", "data=3"], "option 'data' is a table, not 3"),
        (["--set", "optimiser=3"], "option 'optimiser' is a table, not 3"),
        (["--set", "augmentation.operators=colr"], "did you mean 'color'?"),
    ],
)
def test_distill_refuses(capsys: Captured, tmp_path: Path, words: list[str], said: str) -> None:
    assert said in refused(capsys, "distill", *TINY, "-o", tmp_path / "set.h5", *words)
    assert not list(tmp_path.iterdir())


def test_images_that_no_disk_has_room_for(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsdistill.data.mapped.shutil.disk_usage", lambda _: SimpleNamespace(free=10**11))
    line = refused(capsys, "distill", *TINY, "-o", tmp_path / "set.h5", "--size", 16000)
    assert "take 345 GB on the disk of " in line
    assert "; choose a smaller --size, or set DSDISTILL_CACHE" in line
    assert not list(tmp_path.iterdir())


def test_hugging_face_needs_its_package(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # type: ignore[arg-type]
    words = ("distill", *TINY, "--dataset", "hf:mnist", "-o", tmp_path / "set.h5")
    assert 'needs the package datasets: pip install "dsdistill[hf]"' in refused(capsys, *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--method idc --set multi_formation.factor=9",
            "factor 9 leaves nothing in some tiles of an image",
        ),
        ("--method idc --set multi_formation.factor=0", "option 'multi_formation.factor' is 0"),
        ("--method idc --network mlp", "no convolutions to match gradients of; match its weights instead"),
        ("--method idc --set engine.metric=foo", "option 'engine.metric' is 'foo': input should be 'cosine'"),
        (
            "--method dsa --zca --set optimiser.clamp_every=1",
            "whitened pixels are not clamped: set optimiser.clamp_every=0 or space=unit",
        ),
        ("--method idc-i --network convnet2-w8-batch", "one image of a class is no batch to normalise by"),
        ("--method idc --set engine.kind=distribution", "belongs to another kind than the one chosen"),
        (
            "--method dm --network convnet2-w8-batch --set optimiser.updates=per-class",
            "this loss couples the classes, so per-class updates are not possible",
        ),
        ("--method dsa --set engine.supply.on=fake", "option 'engine.supply.on' is 'fake'"),
        ("--method dsa --set engine.supply.epoch=2", "did you mean 'engine.supply.epochs'?"),
        ("--method idc --set engine.supply.cutmix=1.5", "option 'engine.supply.cutmix' is 1.5"),
        ("--method dsa --set init=corect", "option 'init' is 'corect': input should be 'real'"),
        (
            "--method dm --set init=correct",
            "init=correct chooses images by trained networks, and this",
        ),
        (
            "--method dream --set engine.batch_real=200",
            "fewer than the 200 centres of its clusters: set engine",
        ),
        (
            "--method dream --set engine.real_batches.sub_sample=3",
            "engine.real_batches.sub_sample=3 does not divide engine.batch_real=32",
        ),
        (
            "--method dream --set engine.real_batches.candidates=9",
            "engine.real_batches.candidates=9 are fewer than engine.batch_real=32",
        ),
        ("--method dream --set engine.real_batches.every=-1", "option 'engine.real_batches.every' is -1"),
        ("--method idc --set sizes=[1,1]", "sizes=[1, 1] do not ascend; name each once, the smallest first"),
        ("--method idc --set sizes=[0,1]", "sizes=[0, 1]: a set has at least 1 image of a class"),
        (
            "--method idc --set sizes=[1,5]",
            "sizes=[1, 5] end with 5, and the IPC is 1: the last is the whole",
        ),
        (
            "--method idc --set sizes=[1.5,2]",
            "option 'sizes' is [1.5, 2]: sizes are auto, or whole numbers such",
        ),
        (
            "--method idc --set sizes=fish",
            "option 'sizes' is 'fish': sizes are auto, or whole numbers such as",
        ),
        ("--method idc --set size_period=0", "option 'size_period' is 0"),
        ("--method mdc --ipc 1,2,1,1,1,1,1,1,1,1", "sizes are those of every class, so all have one IPC"),
        ("--method dm --iterations 0 --seconds 5", "method 'dm' takes no iterations, so that a time has"),
        ("--method mtt --set sizes=[1]", "sizes are for methods that match each class with real images"),
        ("--method dc --set init=representative", "set init=real, or use a method that follows experts"),
    ],
)
def test_gradient_methods_refuse(capsys: Captured, tmp_path: Path, words: str, said: str) -> None:
    assert said in refused(capsys, "distill", *TINY, "-o", tmp_path / "set.h5", *words.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none(capsys: Captured, made: Path) -> None:
    for words in (("distill", *TINY, "-o", made, "--overwrite"), ("evaluate", made, *FAST)):
        assert "use --device cpu" in refused(capsys, *words, "--device", "cuda")


def test_unknown_words(capsys: Captured) -> None:
    assert "unknown command 'distil'; did you mean 'distill'?" in refused(capsys, "distil", "-o", "x.h5")
    assert "--output" in refused(capsys, "distill", "--dataset", "digits")
    assert "--help" in refused(capsys, "--hlep")
    assert "no data set given" in refused(capsys, "distill", "-o", "none.h5", "--ipc", "1")
    assert "no IPC" in refused(capsys, "distill", "-o", "none.h5", "--dataset", "digits")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read"),
        ("not toml", "is not valid TOML"),
        ("[optimizer]\nlr = 1.0", "unknown option 'optimizer.lr'; did you mean 'optimiser.lr'?"),
        ('data = "digits"', "option 'data' is a table"),
    ],
)
def test_config_files_that_are_wrong(capsys: Captured, tmp_path: Path, text: str | None, said: str) -> None:
    config = tmp_path / "my.toml"
    if text is not None:
        config.write_text(text)
    words = ["distill", "-o", tmp_path / "set.h5", "--config", config, "--ipc", "1"]
    words += [] if text and text.startswith("data") else ["--dataset", "digits"]
    assert said in refused(capsys, *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--repeats", "0"], "'repeats' is 0"),
        (["--epochs", "0"], "'epochs' is 0"),
        (["--epochs", "-3"], "'epochs' is -3"),
        (["--networks", "convnte3"], "did you mean 'convnet3'?"),
        (["--networks", "convnet5"], "cannot take 8x8 images"),
        (["--protocol", "dx"], "unknown protocol 'dx'; did you mean 'dm'?"),
        (["--protocol", "none.toml"], "cannot read"),
        (["--dataset", "digit"], "did you mean 'digits'?"),
        (["--baselines", "randm"], "did you mean 'random'?"),
        (["--precision", "fp8"], "unknown precision"),
        (["--json", "no-such-folder/x.json"], "does not exist"),
        (["--epoch", "3"], "--epochs"),
    ],
)
def test_evaluate_refuses(capsys: Captured, made: Path, words: list[str], said: str) -> None:
    before = made.read_bytes()
    assert said in refused(capsys, "evaluate", made, *FAST, *words)
    assert made.read_bytes() == before


# Files that are wrong ---------------------------------------------------------------------------------------


def _alien(path: Path, good: bytes) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = 1


def _png(path: Path, good: bytes) -> None:
    with path.open("wb") as file:
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(file, "PNG")


def _newer(path: Path, good: bytes) -> None:
    path.write_bytes(good)
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = hdf5.SET.version + 1


def _flipped(path: Path, good: bytes) -> None:
    path.write_bytes(good)
    with h5py.File(path) as file:
        offset = file["pixels/codes"].id.get_chunk_info(0).byte_offset
    path.write_bytes(good[: offset + 9] + bytes([good[offset + 9] ^ 8]) + good[offset + 10 :])


BAD = {
    "missing": (lambda path, good: None, "no file at"),
    "truncated": (lambda path, good: path.write_bytes(good[: len(good) // 2]), "is damaged"),
    "flipped": (_flipped, "is damaged"),
    "alien": (_alien, "is an HDF5 file, but not a dsdistill one"),
    "png": (_png, "is not an HDF5 file"),
    "newer": (_newer, "newer"),
    "folder": (lambda path, good: path.mkdir(), "it is a folder, not a regular file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files(capsys: Captured, finished: Path, tmp_path: Path, kind: str) -> None:
    spoil, said = BAD[kind]
    path = tmp_path / "bad.h5"
    spoil(path, finished.read_bytes())
    before = path.read_bytes() if path.is_file() else None
    for words in (["info"], ["evaluate"], ["show"], ["export"]):
        extra = [tmp_path / "out.pt"] if words == ["export"] else []
        assert said in refused(capsys, *words, path, *extra)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert {entry.name for entry in tmp_path.iterdir()} <= {"bad.h5"}


def test_outputs_that_cannot_be_written_are_found_before_the_run(capsys: Captured, tmp_path: Path) -> None:
    def lines(output: object, *more: object) -> str:
        return refused(capsys, "distill", *TINY, "-o", output, *more)

    assert "does not exist" in lines(tmp_path / "none/set.h5")
    assert "is a folder" in lines(tmp_path)
    assert "does not exist" in lines(tmp_path / "set.h5", "--run-dir", tmp_path / "none/run")
    assert "both the output and the run directory" in lines(tmp_path / "set.run")
    for kind, spoil in (("alien", _alien), ("png", _png)):
        path = tmp_path / f"{kind}.h5"
        spoil(path, b"")
        before = path.read_bytes()
        assert "would not be replaced" in lines(path, "--overwrite")
        assert path.read_bytes() == before
    assert "is a file" in lines(tmp_path / "set.h5", "--run-dir", tmp_path / "png.h5")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    assert "is not a run directory" in lines(
        tmp_path / "set.h5", "--run-dir", tmp_path / "full", "--overwrite"
    )
    assert (tmp_path / "full/mine.txt").read_text() == "mine"
    assert not (tmp_path / "set.h5").exists()


@pytest.mark.slow
def test_nothing_is_replaced_unasked(capsys: Captured, made: Path) -> None:
    before = made.read_bytes()
    assert "exists" in refused(capsys, "distill", *TINY, "-o", made)
    assert "exists" in refused(
        capsys, "distill", *TINY, "-o", made, "--resume", "--run-dir", made.parent / "no"
    )
    assert "is no .png" in refused(capsys, "show", made, "-o", made)
    assert "is no .json" in refused(capsys, "evaluate", made, *FAST, "--json", made)
    assert "choose another" in refused(capsys, "export", made, made)
    assert made.read_bytes() == before
    other = made.with_name("other.h5")
    line = refused(capsys, "distill", *TINY, "-o", other, "--run-dir", made.with_suffix(".run"))
    assert "--resume" in line
    assert "--overwrite" in line

    (made.with_suffix(".run") / "notes.txt").write_text("mine")
    old = set_file.read(made).images
    succeed(capsys, "distill", *TINY, "-o", made, "--overwrite", "--seed", "1")
    assert not torch.equal(set_file.read(made).images, old)
    assert (made.with_suffix(".run") / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_resume_refuses_another_configuration(capsys: Captured, made: Path) -> None:
    for words, key, value, old in (
        (["--ipc", "2"], "ipc", "2", "1"),
        (["--dataset", "mnist"], "data.name", "'mnist'", "'digits'"),
        (["--set", "optimiser.lr=0.5"], "optimiser.lr", "0.5", "10.0"),
        (["--set", "compute.class_chunk=2"], "compute.class_chunk", "2", "0"),
    ):
        line = refused(capsys, "distill", *TINY, "-o", made, "--resume", *words)
        assert f"with {key} = {value}: it was started with {old};" in line
    config = made.with_name("my.toml")
    config.write_text("seed = 4")
    line = refused(capsys, "distill", "-o", made, "--resume", "--config", config)
    assert "seed = 4: it was started with 0" in line


@pytest.mark.slow
def test_a_replay_is_one_of_the_same_method(capsys: Captured, made: Path, tmp_path: Path) -> None:
    config = made.with_suffix(".run") / "config.toml"
    words = ["distill", "--config", config, "-o", tmp_path / "again.h5"]
    assert "holds every setting of dm, so that nothing would be left of mmd's: leave out --config" in (
        refused(capsys, *words, "--method", "mmd", "--set", "engine.discrepancy.kind=mmd")
    )
    assert "nothing would be left of fyi-dm's" in refused(capsys, *words, "--method", "fyi-dm")
    _, err = succeed(capsys, *words, "--ipc", "2")
    assert "are those for digits at IPC 1; they stay" in err
    some = tmp_path / "some.toml"
    some.write_text('method = "dm"\niterations = 2\nengine.kind = "distribution"\noptimiser.lr = 0.5\n')
    words = ["distill", *TINY, "--config", some, "--method", "mmd", "-o", tmp_path / "other.h5"]
    assert "they stay" not in succeed(capsys, *words)[1]


def test_options_without_a_flag_and_words_in_their_place(capsys: Captured, tmp_path: Path) -> None:
    words = ["distill", *TINY, "-o", tmp_path / "set.h5"]
    assert "no such option: --lr; say --set optimiser.lr=VALUE" in refused(capsys, *words, "--lr", "0.1")
    line = refused(capsys, *words, "--set", "lr=0.1")
    assert "unknown option 'lr'; did you mean 'optimiser.lr' or" in line
    assert len(line) < 200
    assert "did you mean 'digits'?" in refused(capsys, *words, "--dataset", "DIGITS")
    line = refused(capsys, *words, "--experts", tmp_path / "experts.h5")
    assert "method 'dm' takes no networks trained beforehand: leave out --experts" in line
    assert "requires an argument" in refused(capsys, *words, "--seed")


def test_export_refuses_what_it_would_ignore(capsys: Captured, made: Path, tmp_path: Path) -> None:
    for name in ("set.npz", "set.zip"):
        assert "no format goes by the suffix" in refused(capsys, "export", made, tmp_path / name)
    assert "--dtype is for h5, not for png" in refused(
        capsys, "export", made, tmp_path / "out", "--dtype", "uint8"
    )
    assert "--space is for pt, not for h5" in refused(
        capsys, "export", made, tmp_path / "a.H5", "--space", "unit"
    )
    for _ in range(2):  # it may be replaced
        succeed(capsys, "export", made, tmp_path / "set.pth")
    assert (tmp_path / "set.pth").is_file()


@pytest.mark.slow
def test_data_that_moved_are_asked_for(capsys: Captured, tmp_path: Path) -> None:
    for split in ("train", "test"):
        pictures(tmp_path / "pets" / split, {"cat": 4, "dog": 4})
    made = tmp_path / "set.h5"
    succeed(capsys, "distill", *TINY, "--dataset", f"folder:{tmp_path / 'pets'}", "-o", made)
    (tmp_path / "pets").rename(tmp_path / "moved")
    line = refused(capsys, "evaluate", made, *FAST)
    assert f"no longer at {tmp_path / 'pets'}; pass --dataset folder:PATH" in line
    succeed(capsys, "evaluate", made, *FAST, "--dataset", f"folder:{tmp_path / 'moved'}")


# Folders of pictures ----------------------------------------------------------------------------------------


def test_folders_that_are_wrong(capsys: Captured, tmp_path: Path) -> None:
    def line(folder: Path) -> str:
        return refused(capsys, "distill", *TINY, "--dataset", f"folder:{folder}", "-o", tmp_path / "set.h5")

    assert "no such folder" in line(tmp_path / "none")
    assert "holds no pictures" in line(pictures(tmp_path / "empty", {"cat": 4, "dog": 0}))
    assert "one class only" in line(pictures(tmp_path / "single", {"cat": 4}))
    for split in ("train", "test"):
        pictures(tmp_path / "corrupt" / split, {"cat": 4, "dog": 4})
    path = tmp_path / "corrupt/train/dog/2.png"
    path.write_bytes(path.read_bytes()[:60])
    assert str(path) in line(tmp_path / "corrupt")
    assert not (tmp_path / "set.h5").exists()


# Outputs that cannot be written ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["distill", "experts"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("set.pt", "the output is HDF5, not a .pt file: name it set.h5"),
        ("x" * 252 + ".h5", "too long for the file system"),  # 255 bytes, and its folder has more
        ("x" * 300 + ".h5", "too long for the file system"),
        ("loop.h5", "loop.h5: Too many levels of symbolic links"),
        ("protected.h5", "protected.h5 is write-protected"),
    ],
)
def test_outputs_are_checked_before_the_data_are_read(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str, said: str
) -> None:
    monkeypatch.setattr("dsdistill.data.catalog.load", lambda *_: pytest.fail("data were read"))
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    (tmp_path / "protected.h5").touch(0o444)
    words = TINY if command == "distill" else ["--dataset", "digits", "--recipe", "ncfm"]
    assert said in refused(capsys, command, *words, "-o", tmp_path / name, "--overwrite")
    assert len(list(tmp_path.iterdir())) == 2


def test_write_protected_outputs_are_refused_by_every_command(
    capsys: Captured, made: Path, tmp_path: Path
) -> None:
    outputs = {suffix: tmp_path / f"out{suffix}" for suffix in (".png", ".pt", ".json", ".html")}
    for path in outputs.values():
        path.touch(0o444)
    for words in (
        ["show", made, "-o", outputs[".png"]],
        ["export", made, outputs[".pt"]],
        ["evaluate", made, "--json", outputs[".json"]],
        ["report", tmp_path, "-o", outputs[".html"]],
    ):
        assert "is write-protected" in refused(capsys, *words)
    made.chmod(0o444)
    line = refused(capsys, "evaluate", made, *FAST)
    assert "is write-protected" in line
    assert "--no-save" in line
    assert "is write-protected" in refused(capsys, "distill", *TINY, "-o", made, "--overwrite")
    results = tmp_path / "results"
    results.mkdir()
    (results / "results.json").write_text('{"suite": "x", "cells": []}')
    (results / "table.md").touch(0o444)
    assert "is write-protected" in refused(capsys, "bench", "digits", "-o", results)
    (tmp_path / "file").touch()
    assert "is a file, not a folder" in refused(
        capsys, "bench", "digits", "-o", tmp_path / "file" / "results"
    )


def test_class_names_that_no_file_can_hold_are_found_before_the_first_step(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in ("distillation.loop.Distiller.step", "experts.trainer.Trainer.train_epoch"):
        monkeypatch.setattr(f"dsdistill.{step}", lambda *_: pytest.fail("a step was taken"))
    images, labels = np.zeros((40, 8, 8), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "data.npz", images=images, labels=labels, classes=np.array(["a", "x" * 2000]))
    data = ["--dataset", f"npz:{tmp_path / 'data.npz'}", "-o", tmp_path / "set.h5"]
    assert "a class name takes 2,000 bytes" in refused(capsys, "distill", *TINY, *data)
    expert = ["--recipe", "ncfm", "--network", "convnet2-w8", "--count", "1", "--epochs", "1"]
    assert "a class name takes 2,000 bytes" in refused(capsys, "experts", *expert, *data)
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


# Devices and pipes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["distill", *TINY, "-o", "/dev/full"],
        ["experts", "--dataset", "digits", "--recipe", "mtt", "-o", "/dev/full"],
        ["evaluate", "SET", *FAST, "--json", "/dev/full"],
        ["show", "SET", "-o", "/dev/full"],
        *(["export", "SET", "--to", kind, "-o", "/dev/full"] for kind in ("pt", "h5", "png", "ddranking")),
        ["bench", "digits", "-o", "/dev/full"],
        ["report", ".", "-o", "/dev/full"],
    ],
)
def test_devices_are_not_written(capsys: Captured, finished: Path, words: list[str]) -> None:
    line = refused(capsys, *(finished if word == "SET" else word for word in words))
    assert "/dev/full" in line
    assert "choose another" in line or "with -o" in line


@pytest.mark.parametrize(
    "words",
    [
        ["info", "PIPE"],
        ["show", "PIPE"],
        ["evaluate", "PIPE"],
        ["export", "PIPE", "out.pt"],
        ["distill", *TINY, "-o", "out.h5", "--config", "PIPE"],
        ["distill", *TINY, "-o", "out.h5", "--method", "PIPE"],
        ["distill", *TINY, "-o", "out.h5", "--dataset", "npz:PIPE"],
        ["distill", *TINY, "-o", "out.h5", "--method", "mtt", "--experts", "PIPE"],
        ["distill", *TINY, "-o", "PIPE"],
        ["experts", "--dataset", "digits", "--recipe", "PIPE", "-o", "out.h5"],
        ["evaluate", "SET", "--protocol", "PIPE"],
        ["methods", "PIPE"],
        ["bench", "PIPE"],
    ],
)
def test_pipes_are_not_waited_for(
    capsys: Captured, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    monkeypatch.chdir(tmp_path)
    places = {"SET": str(finished)}
    line = refused(capsys, *(places.get(word, word.replace("PIPE", str(pipe))) for word in words))
    assert f"{pipe}: it is a pipe, not a regular file" in line
