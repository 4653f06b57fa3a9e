"""What benchmarks compare with computes the same, and what the real runs are told is understood."""

from __future__ import annotations

import dataclasses
import functools
import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import accuracy, real_runs, speed, ways
from benchmarks.accuracy import gains, make, over_seeds, run
from benchmarks.quantisation import unlike
from benchmarks.real_runs import SUITES
from dsdistill.data import catalog
from dsdistill.distillation import config as configs
from dsdistill.errors import UserError
from dsdistill.experts import config as expert_config
from dsdistill.networks import build_network
from dsdistill.protocol import load_protocol
from dsdistill.seeding import forked
from tests.helpers.cli import refused
from tests.helpers.engines import toy
from tests.reference.ncfm import characteristic_discrepancy, plain_class_loss


def test_plain_ncfm_computes_the_discrepancy() -> None:
    with forked(0, "test"):
        network = build_network("convnet2-w6", 1, 12, 3).double().requires_grad_(False)
        real, fake = (torch.randn(n, 1, 12, 12, dtype=torch.float64) for n in (5, 3))
        frequencies = torch.randn(7, network.feature_dim, dtype=torch.float64)
    features = [torch.nn.functional.normalize(network.embed(x), dim=1) for x in (real, fake)]
    expected = characteristic_discrepancy([features[0]], [features[1]], [frequencies])
    torch.testing.assert_close(plain_class_loss(network, real, fake, frequencies), 300 * expected[0])


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_real_runs_are_understood(
    suite: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(config: Any, split: str, *_: Any) -> None:
        raise UserError(f"reading {config.name}, {split}")

    monkeypatch.setattr(catalog, "load", load)
    monkeypatch.setattr(real_runs, "RUNS", tmp_path)
    cells = SUITES[suite]()
    made = {step for cell in cells for step in cell.steps()}
    assert len({file for _, file in made}) == len(made)
    for command, _ in sorted(made):
        said = refused(capsys, *shlex.split(command))
        data = "digits" if suite == "adversary" else "fashion-mnist"
        assert said.endswith(f": reading {data}, train\n") or "no file at" in said, command
    for cell in cells:
        for options in cell.evaluations.values():
            load_protocol(options.split()[1])


def test_idm_is_judged_once_because_its_protocol_has_dm_s_settings() -> None:
    idm, dm = (
        dataclasses.replace(load_protocol(name), name="", title="", source="") for name in ("idm", "dm")
    )
    assert idm == dm
    (cell,) = (cell for cell in SUITES["distribution-ipc1"]() if "idm" in cell.name)
    assert list(cell.evaluations) == ["idm"]


def test_what_other_commands_made_is_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(words: list[str], **_: Any) -> None:
        if "fails" in words:
            raise subprocess.CalledProcessError(2, words)
        Path(words[words.index("-o") + 1]).touch()

    def ran(*commands: str) -> int:
        run((f"-o {tmp_path / str(at)} {command}", tmp_path / str(at)) for at, command in enumerate(commands))
        return capsys.readouterr().out.count("$")

    monkeypatch.setattr(subprocess, "run", told)
    assert ran("distil", "judge", "again") == 3
    assert ran("distil", "judge", "again") == 0
    (tmp_path / "1").unlink()
    assert ran("distil", "judge", "again") == 2
    assert ran("distil longer", "judge", "again") == 3
    (tmp_path / "0").unlink()
    with pytest.raises(subprocess.CalledProcessError):
        ran("distil longer", "fails", "again")
    capsys.readouterr()
    assert ran("distil longer", "judge", "again") == 2  # what was judged was another set


def test_where_a_command_is_stopped_no_other_cell_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun = []

    def stopped(words: list[str], **_: Any) -> None:
        begun.append(words)
        raise subprocess.CalledProcessError(143, words)

    monkeypatch.setattr(real_runs, "RUNS", tmp_path)
    monkeypatch.setattr(subprocess, "run", stopped)
    cells = [real_runs.Cell(str(at), "", {}) for at in range(9)]
    with pytest.raises(subprocess.CalledProcessError):
        make(cells, 1)
    assert len(begun) == 1


def test_cells_are_made_one_by_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(words: list[str], **_: Any) -> None:
        if "--json" not in words:
            return Path(words[words.index("-o") + 1]).touch()
        row = {"set": "distilled", "network": "mlp", "protocol": "dm", "values": [50.0, 52.0], "mean": 51.0}
        about = {"date": "2026-01-02", "machine": "a", "epochs": 3, "cost": {"distil_seconds": 60}}
        Path(words[words.index("--json") + 1]).write_text(json.dumps({"rows": [row], **about}))

    def made(*arguments: str) -> list[str]:
        monkeypatch.setattr("sys.argv", ["accuracy.py", "two", *arguments])
        accuracy.main()
        capsys.readouterr()
        return [row["cell"] for row in json.loads((tmp_path / "accuracy-two.json").read_text())["rows"]]

    cells = [real_runs.Cell(name, f"--seed {at}", {"dm": "--repeats 2"}) for at, name in enumerate("ab")]
    suite = {"two": lambda: cells}
    for module, name, value in (
        (subprocess, "run", told),
        (real_runs, "RUNS", tmp_path),
        (accuracy, "RUNS", tmp_path),
        (accuracy, "ARTIFACTS", tmp_path),
        (accuracy, "SUITES", suite),
    ):
        monkeypatch.setattr(module, name, value)
    assert made("--cells", "b") == ["b"]
    assert "Not made yet: a." in (tmp_path / "accuracy-two.md").read_text()
    (tmp_path / "b.dm.json").unlink()  # as on another machine
    assert made("--cells", "a") == ["a", "b"]
    assert "Not made yet" not in (tmp_path / "accuracy-two.md").read_text()
    cells[1] = real_runs.Cell("b", "--seed 5", {"dm": "--repeats 2"})
    assert made("--cells", "a") == ["a"]  # b was made by another command
    with pytest.raises(SystemExit):
        made("--cells", "c")
    assert "two has no c, but a, b" in capsys.readouterr().err


def test_forms_of_a_set_are_judged_alike(tmp_path: Path) -> None:
    verdicts = [tmp_path / name for name in ("float32.json", "float16.json", "uint8.json")]
    for date, (file, code) in enumerate(zip(verdicts, ("old", "new", "new"), strict=True)):
        assert unlike(verdicts) == verdicts[date:] if date < 2 else unlike(verdicts) == [verdicts[0], file]
        file.write_text(json.dumps({"conditions": code, "date": f"2026-01-0{date + 1}"}))
    assert unlike(verdicts) == verdicts[:1]


def test_gains_pair_runs_by_their_seed() -> None:
    values = {"true": (3.0, 5.0), "false": (2.0, 2.5)}
    rows = [
        {"cell": f"fyi-flip-{flip}-seed{seed}", "evaluation": "fyi", "set": "distilled", "mean": mean}
        for flip, means in values.items()
        for seed, mean in enumerate(means)
    ]
    rows.append({"cell": "other", "evaluation": "fyi", "set": "distilled", "mean": 1.0})
    seeds = over_seeds(rows)
    assert {name: gains(name, seeds) for name in seeds} == {
        "fyi-flip-true, fyi, distilled": [1.0, 2.5],
        "fyi-flip-false, fyi, distilled": [],
    }


_CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.conv2d.default)


class _Convolved(TorchDispatchMode):
    """Counts the images that enter networks: go forth through a convolution of one input channel."""

    def __init__(self) -> None:
        super().__init__()
        self.images = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _CONVOLUTIONS and args[1].shape[1] == 1:
            self.images += len(args[0])
        return function(*args, **(kwargs or {}))


def _small(resolve: Callable[[dict[str, Any]], Any], told: dict[str, Any]) -> Any:
    return resolve({"network": "convnet3-w8", **told})


@pytest.mark.slow
@pytest.mark.parametrize("what", ["dm", "datadam", "idm", "ncfm", "inner", "student", "expert"])
def test_ways_that_are_compared_do_the_same_work(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    tiny = toy(size=28, counts=(4,) * 10)
    monkeypatch.setattr(catalog, "load", lambda *_: tiny)
    monkeypatch.setattr(ways, "quiet_allocator", lambda: True)
    for module in (configs, expert_config):
        small = functools.partial(_small, module.resolve)
        monkeypatch.setattr(module, "resolve", small)
    worked = []
    for name, way in speed.compared(what, ipc=1).items():
        if "compiled" not in name:
            work = way()
            work()
            with _Convolved() as counted:
                work()
            worked.append(counted.images)
    plain, ours = worked
    if what == "student":  # a call of ours are two epochs
        plain *= 2
    if what == "idm":  # whose released code passes the synthetic images, four a class, twice
        plain -= 40
    assert plain == ours > 0
