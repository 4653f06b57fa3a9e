"""Runs of the trajectory engine: from a buffer to a file that is judged; killed, resumed and refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import dsdistill
from dsdistill.cli import main
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError
from dsdistill.storage import set_file, set_results
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.storage.hdf5 import EXPERTS, checksum, contents, fixed_text
from dsdistill.synthetic.distilled import DistilledSet
from tests.conftest import THREADS
from tests.helpers.callbacks import Killed
from tests.helpers.cli import Captured, refused
from tests.helpers.runs import begin_with
from tests.helpers.trajectories import NETWORK, RECIPE, written


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a recipe and experts for the digits, right and wrong ones."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "method.toml").write_text(RECIPE)
    task, real = catalog.load(DataConfig(name="digits"), "train")
    written(folder / "experts.h5", task, real)
    written(folder / "ends.h5", task, real, epochs=(0, 7))
    written(folder / "short.h5", task, real, epochs=range(4))
    written(folder / "wide.h5", task, real, "convnet2-w8")
    written(folder / "backwards.h5", dataclasses.replace(task, classes=task.classes[::-1]), real)
    negative = RealDataset("negatives", "train", 255 - real.images, real.labels, real.classes)
    written(folder / "negatives.h5", dataclasses.replace(task, name="negatives"), negative)
    whole = (folder / "experts.h5").read_bytes()
    (folder / "truncated.h5").write_bytes(whole[: len(whole) // 2])
    (folder / "text.h5").write_text("no weights")
    return folder


def distilled(home: Path, output: Path, *overrides: str, **options: Any) -> DistilledSet:
    told = [f"engine.supply.path={home / 'experts.h5'}", THREADS, "checkpoint.iterations=2", *overrides]
    options = {"dataset": "digits", "ipc": 1, "device": "cpu"} | options
    dsdistill.distill(output, method=str(home / "method.toml"), overrides=told, **options)
    return set_file.read(output)


def checkpoint(output: Path) -> dict[str, Tensor]:
    return load_file(max(output.with_suffix(".run").glob("checkpoint-*")))


# From experts to accuracies ---------------------------------------------------------------------------------


def test_the_file_holds_what_was_learned(home: Path, tmp_path: Path) -> None:
    made = distilled(home, tmp_path / "set.h5", "storage=float32")
    learned = checkpoint(tmp_path / "set.h5")
    assert int(learned["iteration"]) == 6
    assert made.soft_labels is not None
    assert torch.equal(made.soft_labels, learned["synthetic.label_logits"])
    assert made.attributes["learned_lr"] == learned["synthetic.student_lr"].item() != pytest.approx(0.05)
    log = [json.loads(line) for line in (tmp_path / "set.run" / "metrics.jsonl").read_text().splitlines()]
    rates = [entry["student_lr"] for entry in log]
    assert rates[-1] == made.attributes["learned_lr"]
    assert len(set(rates)) == 6
    assert all(entry["loss"] == entry["trajectory"] for entry in log)
    averaged = made.preprocess.inverse(learned["synthetic.average"])
    assert torch.equal(made.images, averaged)
    assert not torch.allclose(averaged, made.preprocess.inverse(learned["synthetic.images"]), rtol=1e-3)


@pytest.mark.slow
def test_without_averages_and_labels_the_file_holds_the_last_images(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "set.h5"
    made = distilled(
        home, output, "optimiser.ema=0", "engine.labels.learned=false", "space=unit", "storage=float32"
    )
    learned = checkpoint(output)
    assert made.soft_labels is None
    assert torch.equal(made.images, learned["synthetic.images"])
    assert not any(name.endswith(("average", "label_logits")) for name in learned)


@pytest.mark.slow
def test_students_are_judged_at_the_learned_rate_on_the_learned_labels(home: Path, tmp_path: Path) -> None:
    made = distilled(home, tmp_path / "set.h5")
    set_file.write(tmp_path / "hard.h5", dataclasses.replace(made, soft_labels=None))
    learned = made.attributes["learned_lr"]

    def judged(lr: object, name: str = "set") -> tuple[float, list[float]]:
        protocol = tmp_path / "mine.toml"
        protocol.write_text(f'title = "mine"\nsource = "none"\nepochs = 4\nlr = {lr}\n')
        report = dsdistill.evaluate(
            tmp_path / f"{name}.h5", protocol=protocol, repeats=2, baselines="", device="cpu", save=False
        )
        return report.lr, report.rows[0].values

    found = judged('"learned"')
    assert found[0] == learned
    assert judged(repr(learned)) == found
    assert judged(0.2)[1] != found[1]
    assert judged('"learned"', "hard")[1] != found[1]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [-0.01, 0.0, float("nan")])
def test_a_learned_rate_that_is_no_rate_is_refused(home: Path, tmp_path: Path, rate: float) -> None:
    """The last step may leave one."""
    made = distilled(home, tmp_path / "set.h5")
    attributes = {**made.attributes, "learned_lr": rate}
    set_file.write(tmp_path / "spoilt.h5", dataclasses.replace(made, attributes=attributes))
    protocol = tmp_path / "mine.toml"
    protocol.write_text('title = "mine"\nsource = "none"\nepochs = 4\nlr = "learned"\n')
    with pytest.raises(UserError, match=f"takes the learned lr, which is {rate:.3g}; choose"):
        dsdistill.evaluate(tmp_path / "spoilt.h5", protocol=protocol, device="cpu")


@pytest.mark.slow
def test_images_the_experts_know_are_chosen(home: Path, tmp_path: Path) -> None:
    still = ("optimiser.lr=0", "storage=float32")
    sets = {
        init: distilled(home, tmp_path / f"{init}.h5", f"init={init}", *still, iterations=1).images
        for init in ("real", "correct", "representative")
    }
    _, real = catalog.load(DataConfig(name="digits"), "train")
    for images in sets.values():
        apart = (images[:, None] - real.unit(slice(None))).abs().amax((2, 3, 4))
        assert torch.equal(real.labels[apart.argmin(1)], torch.arange(10))
        assert float(apart.amin(1).max()) < 1e-5
    assert not torch.equal(sets["real"], sets["correct"])
    assert not torch.equal(sets["real"], sets["representative"])


# Stopping and resuming --------------------------------------------------------------------------------------


def kill(entry: dict[str, Any]) -> None:
    if entry["iteration"] == 4:
        raise Killed


@pytest.mark.slow
def test_killed_and_resumed_is_bit_identical(home: Path, tmp_path: Path) -> None:
    straight, output = tmp_path / "straight.h5", tmp_path / "set.h5"
    expected = distilled(home, straight)
    with pytest.raises(Killed):
        distilled(home, output, callbacks=[kill])
    assert not output.exists()
    steps: list[int] = []
    found = distilled(home, output, resume=True, callbacks=[lambda entry: steps.append(entry["iteration"])])
    assert steps == [3, 4, 5, 6]
    whole, resumed = checkpoint(straight), checkpoint(output)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert torch.equal(found.images, expected.images)
    assert found.soft_labels is not None
    assert expected.soft_labels is not None
    assert torch.equal(found.soft_labels, expected.soft_labels)
    assert found.attributes["learned_lr"] == expected.attributes["learned_lr"]


@pytest.mark.slow
def test_a_set_tells_of_no_folder_and_a_finished_run_knows_it(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "set.h5"
    made = distilled(home, output, iterations=1)
    told = tomllib.loads(str(made.attributes["config"]))
    assert (told["method"], told["engine"]["supply"]["path"]) == ("method.toml", "experts.h5")
    assert not [value for value in made.attributes.values() if str(home) in str(value)]
    set_results.append_result(output, {"an": "evaluation"})
    distilled(home, output, iterations=1, resume=True)
    assert set_results.results(output) == [{"an": "evaluation"}]  # the file was not written again


@pytest.mark.slow
def test_other_experts_in_the_same_place_are_refused(home: Path, tmp_path: Path) -> None:
    experts, output = tmp_path / "experts.h5", tmp_path / "set.h5"
    shutil.copy(home / "experts.h5", experts)
    with pytest.raises(Killed):
        distilled(home, output, f"engine.supply.path={experts}", callbacks=[kill])
    written = tomllib.loads((output.with_suffix(".run") / "config.toml").read_text())["engine"]["supply"]
    held = ExpertFile.open(experts)
    assert (written["experts"], written["digest"]) == (3, held.digest)
    held.close()
    with h5py.File(experts, "r+") as file:  # as if trained anew
        file["training/loss"][0] *= 1.001
        file.attrs["sha256"] = fixed_text(checksum(*contents(file, EXPERTS.sliced)))
    with pytest.raises(UserError, match=r"holds other experts \(digest .*put those back"):
        distilled(home, output, f"engine.supply.path={experts}", resume=True)
    shutil.copy(home / "experts.h5", experts)
    run = output.with_suffix(".run")
    text = (run / "config.toml").read_text()
    older = text.replace(f'digest = "{held.digest}"\n', "")  # begun before there were digests
    assert older != text
    begin_with(run, older)
    distilled(home, output, f"engine.supply.path={experts}", resume=True)


def test_a_learning_rate_that_becomes_negative_stops_the_run(
    capsys: Captured, home: Path, tmp_path: Path
) -> None:
    output = tmp_path / "set.h5"
    words = ["distill", *told(home), "-o", str(output), "--set", "checkpoint.iterations=1"]
    words += ["--set", "engine.student.lr=0.5", "--set", "engine.student.learning.lr=100"]
    assert main(words) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("dsdistill: the student's learning rate, which is learned, has become -")
    assert "at iteration 1: start anew with a lower engine.student.learning.lr or" in line
    assert line.endswith(" or, where losses begin far above 1, engine.start.most, and --overwrite")
    assert int(checkpoint(output)["iteration"]) == 1
    assert not output.exists()


def test_a_learning_rate_that_ends_negative_is_said(capsys: Captured, home: Path, tmp_path: Path) -> None:
    words = ["distill", *told(home), "-o", str(tmp_path / "set.h5"), "--iterations", "1"]
    words += ["--set", "engine.student.lr=0.5", "--set", "engine.student.learning.lr=100"]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "the student's learning rate, which is learned, ended at -" in said
    assert "discarded" not in said


@pytest.mark.slow
def test_iterations_that_were_discarded_are_said(capsys: Captured, home: Path, tmp_path: Path) -> None:
    output = tmp_path / "set.h5"
    words = ["distill", *told(home), "-o", str(output), "--iterations", "3"]
    assert main([*words, "--set", "engine.skip_above=1e-6"]) == 0
    assert "3 of 3 iterations were discarded, their loss being above engine.skip_above; raise it" in (
        capsys.readouterr().err
    )
    entries = (output.with_suffix(".run") / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(entry)["discarded"] for entry in entries] == [True] * 3
    assert main([*words, "--set", "engine.skip_above=1e6", "--overwrite"]) == 0
    assert "discarded" not in capsys.readouterr().err


# Refused before the first step ------------------------------------------------------------------------------


def told(home: Path, experts: str = "experts") -> list[str]:
    words = ["--dataset", "digits", "--ipc", "1", "--method", str(home / "method.toml"), "--device", "cpu"]
    return [*words, "--set", THREADS, "--set", f"engine.supply.path={home / experts}.h5"]


@pytest.mark.parametrize(
    ("experts", "said"),
    [
        ("none", "no file at"),
        ("text", "is not an HDF5 file"),
        ("truncated", "is damaged"),
        ("short", "does not hold epoch 4 of its experts (it holds 4 epochs, the last being 3)"),
        ("ends", "does not hold epoch 1 of its experts (it holds 2 epochs, the last being 7)"),
        ("wide", f"trained with network convnet2-w8, and this run has {NETWORK}; pass --network convnet2-w8"),
        ("backwards", "trained with classes 9, 8"),
        ("negatives", "trained with data set negatives"),
    ],
)
def test_experts_of_something_else_are_refused(
    capsys: Captured, home: Path, tmp_path: Path, experts: str, said: str
) -> None:
    assert said in refused(capsys, "distill", *told(home, experts), "-o", tmp_path / "set.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("engine.supply.experts=4", "holds 3 experts, not 4"),
        ("data.zca=true", "preprocessing standardise, and this run has zca; pass --set data.zca=false"),
        ("engine.start.most=7", "lower one of them, or train experts for 8 epochs, all kept"),
        ("engine.expert_epochs=6", "a start below engine.start.most = 3 is followed for"),
        ("engine.start.least=1", "engine.start.least = 1 has to lie below engine.start.widen_from = 1"),
        ("engine.batch_synthetic=11", "engine.batch_synthetic = 11 is more than the 10 images of the set"),
        ("engine.last=5", "engine.last = 5 is more than engine.steps = 4"),
        ("engine.between=equal engine.expert_epochs=5 engine.start.widen_until=0", "4 steps cannot meet"),
        ("optimiser.updates=per-class", "this loss couples the classes"),
        ("optimiser.ema=1", "option 'optimiser.ema' is 1: input should be less than 1"),
        ("engine.student.momentum=1", "option 'engine.student.momentum' is 1"),
        ("engine.student.lr=0", "option 'engine.student.lr' is 0"),
        ("engine.steps=0", "option 'engine.steps' is 0"),
        ("engine.gradient=half", "option 'engine.gradient' is 'half': input should be 'exact'"),
        ("engine.start.mots=3", "did you mean 'engine.start.most'?"),
        ("engine.labels.lerned=true", "did you mean 'engine.labels.learned'?"),
        ("labels=teacher", "learned here, or a teacher's: set engine.labels.learned=false, or labels=hard"),
    ],
)
def test_what_cannot_be_is_refused(
    capsys: Captured, home: Path, tmp_path: Path, words: str, said: str
) -> None:
    sets = [word for override in words.split() for word in ("--set", override)]
    assert said in refused(capsys, "distill", *told(home), "-o", tmp_path / "set.h5", *sets)
    assert not list(tmp_path.iterdir())
