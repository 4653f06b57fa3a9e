"""Networks of the user's own on the command line."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from dsdistill.networks.registry import NETWORKS
from tests.helpers.cli import Captured, refused, succeed

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "new_network.py"
SIZES = ("--dataset", "digits", "--ipc", "1", "--iterations", "2")
SHORT = ("--epochs", "1", "--repeats", "1", "--baselines", "")

pytestmark = pytest.mark.usefixtures("plugs")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(EXAMPLE.read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_set_loads_no_code_and_the_next_command_names_it(folder: Path, capsys: Captured) -> None:
    with NETWORKS.restored():
        out, _ = succeed(capsys, "distill", *SIZES, "--network", "net.py:SmallNet", "-o", "set.h5")
    said = refused(capsys, "evaluate", "set.h5", *SHORT)
    assert "network 'net.py:SmallNet' is code of the program that used it, which is never run unasked" in said
    (line,) = (line for line in out.splitlines() if "dsdistill evaluate" in line)
    assert "--networks" in line
    out, _ = succeed(capsys, *shlex.split(line)[2:], *SHORT)
    assert "net.py:SmallNet" in out
    assert str(folder) not in succeed(capsys, "info", "set.h5")[0].split("images")[1]


def test_a_run_is_resumed_by_its_own_command(folder: Path, capsys: Captured) -> None:
    words = ("distill", *SIZES, "--network", "net.py:SmallNet", "-o", "set.h5")
    with NETWORKS.restored():
        succeed(capsys, *words)
    before = (folder / "set.h5").read_bytes()
    with NETWORKS.restored():
        succeed(capsys, *words, "--resume")
    assert (folder / "set.h5").read_bytes() == before


def test_suites_take_files(folder: Path, capsys: Captured) -> None:
    suite = """
    title = "mine"
    datasets = ["digits"]
    methods = ["dm"]
    ipcs = [1]
    iterations = 1
    epochs = 1
    students = 1
    baselines = []
    network = "net.py:SmallNet"
    networks = ["mlp"]
    """
    (folder / "mine.toml").write_text(suite)
    succeed(capsys, "bench", "mine.toml", "--dry-run", "-o", "results")
    (folder / "mine.toml").write_text(suite.replace(":SmallNet", ":BigNet"))
    said = refused(capsys, "bench", "mine.toml", "--dry-run", "-o", "results")
    assert "unknown network in" in said
    assert "'BigNet'; known: SmallNet" in said


def test_registered_and_installed_networks_are_listed(capsys: Captured) -> None:
    before, _ = succeed(capsys, "networks")
    assert "FILE.py:NAME" in before
    NETWORKS.add("tiny", object)
    out, _ = succeed(capsys, "networks")
    assert out.startswith(before)
    assert "tiny  of this program" in out
