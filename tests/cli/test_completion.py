"""Completion of names, by the protocol that the shells' scripts use."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dsdistill.cli import completion, main
from tests.helpers.cli import Captured
from tests.helpers.processes import ROOT


def completed(capsys: Captured, monkeypatch: pytest.MonkeyPatch, line: str, shell: str = "zsh") -> set[str]:
    """Return what a shell is offered for the last word of a command line."""
    monkeypatch.setenv("_DSDISTILL_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    answer = capsys.readouterr().out
    if shell != "zsh":
        return {text.partition("\t")[0] for text in answer.splitlines() if text}
    return {text.split('"')[1] for text in answer.splitlines() if '"' in text}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_offered_commands_and_names(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    assert completed(capsys, monkeypatch, "dsdistill ev", shell) == {"evaluate"}
    assert completed(capsys, monkeypatch, "dsdistill distill --method fyi", shell) == {
        "fyi-dm",
        "fyi-dsa",
        "fyi-mtt",
    }


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("distill --dataset imagew", {"imagewoof"}),
        ("distill --dataset fold", set()),  # the shell completes paths
        ("distill --network convnet4", {"convnet4"}),
        ("distill --res", {"--resume"}),
        ("experts --recipe n", {"ncfm"}),
        ("experts --dataset mn", {"mnist"}),
        ("evaluate --dataset svh", {"svhn"}),
        ("evaluate --protocol mt", {"mtt"}),
        ("evaluate --networks convnet,resnet18-ap-", {"convnet,resnet18-ap-batch"}),
        ("export --protocol dat", {"datadam", "datm"}),
        ("bench fashion", {"fashion-mnist", "fashion-mnist-quick"}),
        ("methods tes", {"tesla"}),
        ("protocols nc", {"ncfm"}),
    ],
)
def test_each_option_is_offered_its_own_names(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, line: str, names: set[str]
) -> None:
    assert completed(capsys, monkeypatch, f"dsdistill {line}") == names


def test_a_path_is_left_to_the_shell() -> None:
    assert completion.methods("./mine.to") == completion.networks("torchvision:res") == []
    assert "digits" in completion.datasets("")


def test_what_completes_loads_no_torch() -> None:
    program = """
import sys
from dsdistill.cli import completion
assert completion.methods("dm") and completion.networks("mlp") and completion.datasets("svhn")
assert not {"torch", "numpy", "pydantic"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_takes_the_script(tmp_path: Path) -> None:
    """The script that the program prints defines a completion, which calls the program."""
    program = tmp_path / "dsdistill"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m dsdistill "$@"\n')
    program.chmod(0o755)
    script = f"""
PATH={tmp_path}:$PATH
eval "$(_DSDISTILL_COMPLETE=source_bash dsdistill)"
COMP_WORDS=(dsdistill distill --method nc) COMP_CWORD=3
_dsdistill_completion dsdistill
echo "${{COMPREPLY[@]}}"
"""
    shell = ["bash", "--norc", "-c", script]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["ncfm", "ncfm-minmax"], done.stderr


def test_an_unknown_shell_is_said(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer._completion_shared._get_shell_name", lambda: None)
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: None)
    assert main(["--show-completion"]) == 2
    assert "_DSDISTILL_COMPLETE=source_bash dsdistill" in capsys.readouterr().err
