"""What a call promises beyond pixels: nothing finished is lost, paths and devices do not matter."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dsdistill
from dsdistill.cli import main
from dsdistill.data.preprocess import Standardise
from dsdistill.distillation.config import RunConfig
from dsdistill.errors import UserError
from dsdistill.runtime.checkpoints import RunDirectory
from dsdistill.runtime.metrics import MetricsLog
from dsdistill.storage import set_file, set_results
from dsdistill.storage.set_description import describe
from dsdistill.synthetic.set import Space, SyntheticSet
from tests.conftest import FLOAT32, THREADS, TINY
from tests.helpers.callbacks import Told
from tests.helpers.cli import TINY as WORDS
from tests.helpers.cli import Captured, refused
from tests.helpers.compilers import NOTICE, break_compiler
from tests.helpers.data import pixels
from tests.helpers.marks import slow_but_first

JUDGED: dict[str, Any] = {"epochs": 2, "repeats": 1, "networks": "convnet2-w8"}


def test_resuming_a_finished_run_keeps_its_results(made: Path) -> None:
    dsdistill.evaluate(made, **JUDGED)
    before = set_results.results(made)
    assert len(before) == 2
    dsdistill.distill(made, resume=True)
    assert set_results.results(made) == before


def test_resuming_does_not_replace_another_set(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    dsdistill.distill(other, **TINY | {"ipc": 2}, overrides=[THREADS])
    before = other.read_bytes()
    with pytest.raises(UserError, match=r"other.h5 was not made by set.run; pass --overwrite"):
        dsdistill.distill(other, run_dir=made.with_suffix(".run"), resume=True)
    assert other.read_bytes() == before
    dsdistill.distill(other, run_dir=made.with_suffix(".run"), resume=True, overwrite=True)
    assert torch.equal(set_file.read(other).images, set_file.read(made).images)


def test_a_second_run_of_an_output_or_in_a_run_directory_is_refused(tmp_path: Path) -> None:
    output, run = tmp_path / "set.h5", tmp_path / "set.run"
    said = list[str]()

    def again(entry: dict[str, Any]) -> None:
        for path, options in (
            (output, {"resume": True}),
            (output, {"overwrite": True, "run_dir": tmp_path / "other.run"}),
            (tmp_path / "other.h5", {"run_dir": run, "seed": 1}),
        ):
            with pytest.raises(UserError) as caught:
                dsdistill.distill(path, **TINY, **options)
            said.append(str(caught.value))

    dsdistill.distill(output, **TINY | {"iterations": 1}, overrides=[THREADS], callbacks=[again])
    host = f"process {os.getpid()} on {socket.gethostname()}"
    assert said == [
        f"a distillation of {path} is running already ({host}); "
        "wait for it, stop it, or choose another output"
        for path in (output, output, run)
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.h5", "set.run"]


def test_a_checkpoint_of_another_seed_is_not_gone_on_with(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    dsdistill.distill(other, **TINY, overrides=[THREADS], seed=1)
    before = other.read_bytes()
    for path in made.with_suffix(".run").glob("checkpoint-*"):
        shutil.copy(path, other.with_suffix(".run"))
    with pytest.raises(UserError, match=r"was not made with the configuration in config\.toml; start anew"):
        dsdistill.distill(other, resume=True)
    assert other.read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_directory_that_a_kill_left_empty_is_begun_again(tmp_path: Path, resume: bool) -> None:
    run = tmp_path / "set.run"
    run.mkdir()
    for path in (run / ".config.toml.0a1b2c3d.part", tmp_path / ".set.h5.0a1b2c3d.part"):
        path.write_bytes(bytes(1000))
    dsdistill.distill(tmp_path / "set.h5", **TINY, overrides=[THREADS], resume=resume)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    "content", [b"\xff\x00", b'[1]\n"x"\n{"iteration": "1"}\n{"loss": 1}\n', bytes(10**6)]
)
def test_a_damaged_log_does_not_stop_a_resume(made: Path, content: bytes) -> None:
    before = set_file.read(made).images
    log = made.with_suffix(".run") / "metrics.jsonl"
    whole = log.read_bytes()
    log.write_bytes(content + b"\n" + whole)
    made.unlink()
    dsdistill.distill(made, resume=True)
    assert torch.equal(set_file.read(made).images, before)
    assert log.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"method = ",
        b"\xff",
        b"method = 3\nengine = 4",
        b'method = "dm"\nipc = "x"\ndata = []',
        b"[method]",
    ],
)
def test_a_damaged_config_is_one_line(made: Path, capsys: Captured, content: bytes) -> None:
    (made.with_suffix(".run") / "config.toml").write_bytes(content)
    before = made.read_bytes()
    refused(capsys, "distill", "-o", made, "--resume")
    refused(capsys, "distill", "-o", made, "--resume", "--overwrite")
    assert made.read_bytes() == before


def test_a_full_disk_in_the_log_is_one_line(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = MetricsLog.__init__

    def on_a_full_disk(log: MetricsLog, path: Path) -> None:
        begin(log, path)
        log._file.close()
        log._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 - the log closes it

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "__init__", on_a_full_disk)
        assert main(["distill", *WORDS, "-o", str(tmp_path / "set.h5")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("dsdistill: cannot write ")
    assert last.endswith("metrics.jsonl: No space left on device; --resume goes on from the last checkpoint")
    assert main(["distill", *WORDS, "-o", str(tmp_path / "set.h5"), "--resume"]) == 0


def test_an_evaluation_that_is_stopped_keeps_what_it_finished(made: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if "random" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dsdistill.evaluate(made, **JUDGED, callbacks=[Told(progress=stop)])
    assert [result["set"] for result in set_results.results(made)] == ["distilled"]


def write_arrays(path: Path) -> None:
    np.savez(path, images=pixels(40, 8, 8), labels=np.arange(40) % 2)


def test_paths_are_remembered_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_arrays(tmp_path / "data.npz")
    monkeypatch.chdir(tmp_path)
    dsdistill.distill("set.h5", **TINY | {"dataset": "npz:data.npz"}, overrides=["data.mirror=false"])
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    report = dsdistill.evaluate("../set.h5", **JUDGED)
    assert [row.set for row in report.rows] == ["distilled", "random"]
    dsdistill.distill("again.h5", config="../set.run/config.toml")
    images = [set_file.read(path).images for path in (tmp_path / "set.h5", Path("again.h5"))]
    assert torch.equal(*images)


@pytest.mark.slow
def test_whether_a_mirror_image_keeps_its_label_can_be_said(tmp_path: Path) -> None:
    for mirror in (None, False, True):
        told = [] if mirror is None else [f"data.mirror={str(mirror).lower()}"]
        dsdistill.distill(
            tmp_path / f"{mirror}.h5",
            **TINY | {"iterations": 12},
            overrides=[THREADS, "augmentation.operators=flip", *told],
        )
    default, never, ever = (set_file.read(tmp_path / f"{m}.h5").images for m in (None, False, True))
    assert torch.equal(default, never)  # digits are not to be mirrored
    assert not torch.equal(default, ever)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_what_storing_changed_is_reported(tmp_path: Path, dtype: str) -> None:
    output, exact = tmp_path / "set.h5", tmp_path / "exact.h5"
    dsdistill.distill(exact, **TINY, overrides=[THREADS, "storage=float32"])
    told = [THREADS, f"storage={dtype}", "checkpoint.snapshots=3"]
    made = dsdistill.distill(output, **TINY, overrides=told)
    error = float((set_file.read(output).images - set_file.read(exact).images).abs().max())
    assert made.storage_error == error
    assert (error == 0) is (dtype == "float32")
    assert dsdistill.distill(output, resume=True).storage_error == error  # of the file that is there
    kept = RunDirectory(made.run_dir).snapshots()
    assert [describe(path).dtype for path in (output, *kept)] == [dtype] * 3


CALLS: dict[str, Callable[..., object]] = {
    "distill": lambda output, **told: dsdistill.distill(output, ipc=1, iterations=2, **told),
    "train_experts": lambda output, **told: dsdistill.train_experts(
        output, recipe="ncfm", count=1, epochs=1, **told
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fails", [False, True])
def test_threads_are_as_asked_inside_and_as_they_were_outside(tmp_path: Path, call: str, fails: bool) -> None:
    before, seen = torch.get_num_threads(), set[int]()
    another = 1 if before > 1 else 2
    write_arrays(tmp_path / "data.npz")

    def progress(entry: dict[str, Any]) -> None:
        seen.add(torch.get_num_threads())
        if fails:
            raise KeyError

    for asked, given in ((0, before), (another, another)):
        seen.clear()
        with pytest.raises(KeyError) if fails else contextlib.nullcontext():
            CALLS[call](
                tmp_path / f"{asked}.h5",
                dataset=f"npz:{tmp_path / 'data.npz'}",
                network="convnet2-w4",
                overrides=["compute.compile=false", f"compute.threads={asked}"],
                callbacks=[progress],
            )
        assert (seen, torch.get_num_threads()) == ({given}, before)


@pytest.mark.parametrize("space", ["network", "unit"])
def test_a_set_that_moves_takes_its_preprocessing_along(space: Space) -> None:
    preprocess = Standardise.of((0.4,), (0.2,))
    synthetic = SyntheticSet(torch.rand(4, 1, 3, 3), (2, 2), space, preprocess).to("meta")
    assert synthetic.unit_images().device.type == "meta"
    assert synthetic.of(torch.arange(2, device="meta")).device.type == "meta"


@pytest.mark.parametrize("method", slow_but_first(["dm", "dsa", "idc-i"]))
def test_a_class_smaller_than_the_real_batch_is_mentioned_once(tmp_path: Path, method: str) -> None:
    for batch_real, expected in (
        (131, []),  # the smallest class of the training digits has as many
        (
            132,
            [
                "the smallest class, '8', has 131 training images, so its batches hold all of them; "
                "the recipe asks for 132 (engine.batch_real)"
            ],
        ),
    ):
        said: list[str] = []
        dsdistill.distill(
            tmp_path / f"{batch_real}.h5",
            **TINY | {"method": method, "iterations": 2},
            overrides=[THREADS, f"engine.batch_real={batch_real}"],
            callbacks=[Told(notify=said.append)],
        )
        assert said == expected


COMPILED: dict[str, Any] = TINY | {"overrides": [*FLOAT32, "compute.compile=true"]}


def compiled(config: str) -> bool:
    return bool(tomllib.loads(config)["compute"]["compile"])


def test_a_run_whose_compiler_fails_says_so_in_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, plain = tmp_path / "set.h5", tmp_path / "plain.h5"
    break_compiler(monkeypatch)
    notices: list[str] = []
    headers: list[RunConfig] = []
    dsdistill.distill(
        output,
        **COMPILED,
        callbacks=[Told(notify=notices.append, started=lambda start: headers.append(start.config))],
    )
    assert [notice for notice in notices if "compile" in notice] == [NOTICE]
    assert headers[0].compute.compile is True  # it was, at the start
    assert not compiled((tmp_path / "set.run" / "config.toml").read_text())
    made = set_file.read(output)
    assert not compiled(str(made.attributes["config"]))
    dsdistill.distill(output, resume=True)  # one and the same run
    dsdistill.distill(plain, **TINY, overrides=FLOAT32)
    torch.testing.assert_close(made.images, set_file.read(plain).images)


def test_a_compiled_run_is_resumed_where_the_compiler_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, config = tmp_path / "set.h5", tmp_path / "set.run" / "config.toml"
    break_compiler(monkeypatch, good=10**6)

    def stop(entry: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    told = COMPILED | {"overrides": [*COMPILED["overrides"], "checkpoint.iterations=1"], "iterations": 4}
    with pytest.raises(KeyboardInterrupt):
        dsdistill.distill(output, **told, callbacks=[stop])
    assert compiled(config.read_text())
    monkeypatch.setattr("dsdistill.runtime.compiler.compiles", lambda device, notify: False)
    with pytest.raises(UserError, match="it was started with True"):  # where it is asked for
        dsdistill.distill(output, overrides=["compute.compile=false"], resume=True)
    dsdistill.distill(output, resume=True)
    assert not compiled(config.read_text())
    assert not compiled(str(set_file.read(output).attributes["config"]))


def test_a_finished_run_is_not_written_again_for_want_of_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "set.h5"
    break_compiler(monkeypatch, good=10**6)
    dsdistill.distill(output, **COMPILED)
    before = output.read_bytes()
    monkeypatch.setattr("dsdistill.runtime.compiler.compiles", lambda device, notify: False)
    dsdistill.distill(output, resume=True)
    assert output.read_bytes() == before


# What is passed on, and what stays --------------------------------------------------------------------------


def test_a_set_tells_no_folder_and_its_run_tells_them_all(tmp_path: Path) -> None:
    home = tmp_path / "anna"
    home.mkdir()
    write_arrays(home / "data.npz")
    (home / "mine.toml").write_text('title = "x"\nsource = "x"\nepochs = 1\nrepeats = 1\nstudent = "mlp"\n')
    told = {"dataset": f"npz:{home / 'data.npz'}", "root": home, "resume": True}
    overrides = [f"protocol={home / 'mine.toml'}", "checkpoint.snapshots=3"]
    notices: list[str] = []
    dsdistill.distill(
        home / "set.h5", **TINY | told, overrides=overrides, callbacks=[Told(notify=notices.append)]
    )
    assert f"there is no run in {home / 'set.run'} to resume: starting anew" in notices
    sets = [home / "set.h5", *(home / "set.run").glob("snapshot-*.h5")]
    assert len(sets) == 3
    for path in sets:
        assert b"anna" not in path.read_bytes()
        attributes = set_file.read(path).attributes
        assert (attributes["dataset"], attributes["protocol"]) == ("npz:data.npz", "mine.toml")
        report = dsdistill.evaluate(path, networks="mlp", baselines="", json=tmp_path / "report.json")
        assert (report.dataset, report.protocol) == ("npz:data.npz", "mine")
        assert "anna" not in (tmp_path / "report.json").read_text()
    assert f'root = "{home}"' in (home / "set.run" / "config.toml").read_text()
    dsdistill.distill(home / "set.h5", config=home / "set.run" / "config.toml", resume=True)
    assert len(set_results.results(home / "set.h5")) == 1  # it was seen to be that of the run

    (tmp_path / "shared.toml").write_text(str(set_file.read(home / "set.h5").attributes["config"]))
    replay = {"config": tmp_path / "shared.toml", "dataset": told["dataset"], "overrides": overrides}
    dsdistill.distill(tmp_path / "again.h5", **replay, callbacks=[Told(notify=notices.append)])
    assert torch.equal(set_file.read(tmp_path / "again.h5").images, set_file.read(home / "set.h5").images)
    assert not [sentence for sentence in notices if "they stay" in sentence]

    (home / "set.h5").rename(tmp_path / "given.h5")
    with pytest.raises(UserError, match=r"names the protocol mine\.toml, .* pass --protocol"):
        dsdistill.evaluate(tmp_path / "given.h5", dataset=told["dataset"])
    with pytest.raises(UserError, match=r"from npz:data\.npz, .* pass --dataset npz:PATH"):
        dsdistill.evaluate(tmp_path / "given.h5", protocol="dm")


def test_a_run_directory_that_leads_nowhere_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "set.run").symlink_to("set.run")
    with pytest.raises(UserError, match=r"set\.run is a link that leads nowhere"):
        dsdistill.distill(tmp_path / "set.h5", **TINY)


def test_a_set_says_which_student_it_is_made_for(tmp_path: Path) -> None:
    options = TINY | {"device": "cpu", "iterations": 1}
    dsdistill.distill(tmp_path / "set.h5", **options, overrides=[THREADS, "student=mlp"])
    assert set_file.load(tmp_path / "set.h5").made_for == "mlp"
    with pytest.raises(UserError, match="unknown network 'mpl'"):
        dsdistill.distill(tmp_path / "other.h5", **options, overrides=[THREADS, "student=mpl"])
    assert not (tmp_path / "other.h5").exists()
