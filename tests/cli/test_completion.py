"""Completion of names, by the protocol that the shells' scripts use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dsdistill.cli import completion
from tests.helpers.cli import Captured, refused, succeed
from tests.helpers.processes import ROOT

PROGRAM = """
import contextlib, io, json, os, sys
from dsdistill.cli import main

answers = []
for line in json.loads(sys.argv[1]):
    os.environ["_TYPER_COMPLETE_ARGS"] = os.environ["COMP_WORDS"] = line
    os.environ["COMP_CWORD"] = str(len(line.split(" ")) - 1)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([])
    answers.append(said.getvalue())
assert not {"torch", "numpy"} & set(sys.modules)
print(json.dumps(answers))
"""

LINES = {
    "ev": {"evaluate"},
    "distill --method fyi": {"fyi-dm", "fyi-dsa", "fyi-mtt"},
    "distill --dataset imagew": {"imagewoof"},
    "distill --dataset fold": set(),  # the shell completes paths
    "distill --network convnet4": {"convnet4"},
    "distill --res": {"--resume"},
    "experts --recipe n": {"ncfm"},
    "experts --dataset mn": {"mnist"},
    "experts --network vgg11-": {"vgg11-batch"},
    "experts --network resnet50,efficientnet-b0-x0.": {"resnet50,efficientnet-b0-x0.25"},
    "experts --recipe ea": {"early-teacher"},
    "evaluate --dataset svh": {"svhn"},
    "evaluate --protocol mt": {"mtt"},
    "evaluate --networks convnet,resnet18-ap-": {"convnet,resnet18-ap-batch"},
    "export --protocol dat": {"datadam", "datm"},
    "bench fashion": {"fashion-mnist", "fashion-mnist-quick"},
    "export set.h5 --to p": {"png", "pt", "parquet"},
    "export set.h5 --space u": {"unit"},
    "export set.h5 --dtype u": {"uint8"},
    "import a.pt --format p": {"pictures"},
    "import a.pt --space s": {"standardised"},
    "distill --budget l": {"laptop"},
    "experts --log te": {"tensorboard"},
    "evaluate --baselines random,el2n-easy": {
        "random,el2n-easy",
        "random,el2n-easy@bytes",
        "random,el2n-easy@steps",
    },
    "evaluate --precision b": {"bf16"},
    "completion f": {"fish"},
    "methods tes": {"tesla"},
    "protocols nc": {"ncfm"},
}
"""What is typed, and what is offered for its last word."""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_offered_commands_options_and_names(shell: str) -> None:
    asked = {"_DSDISTILL_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    lines = json.dumps([f"dsdistill {line}" for line in LINES])
    command = [sys.executable, "-c", PROGRAM, lines]
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | asked
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60, check=True)
    for offered, (line, names) in zip(json.loads(done.stdout), LINES.items(), strict=True):
        words = {text.partition("\t")[0] for text in offered.splitlines() if text}
        if shell == "zsh":
            words = {text.split('"')[1] for text in offered.splitlines() if '"' in text}
        assert words == names, line


def test_a_path_is_left_to_the_shell() -> None:
    assert completion.methods("./mine.to") == completion.networks("torchvision:res") == []
    assert "digits" in completion.datasets("")


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_takes_the_script(tmp_path: Path) -> None:
    """The script defines a completion, which calls the program."""
    program = tmp_path / "dsdistill"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m dsdistill "$@"\n')
    program.chmod(0o755)
    script = f"""
PATH={tmp_path}:$PATH
eval "$(dsdistill completion bash)"
COMP_WORDS=(dsdistill distill --method nc) COMP_CWORD=3
_dsdistill_completion dsdistill
echo "${{COMPREPLY[@]}}"
"""
    shell = ["bash", "--norc", "-c", script]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["ncfm", "ncfm-minmax"], done.stderr


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_shell_has_a_script_that_asks_the_program(capsys: Captured, shell: str) -> None:
    script, _ = succeed(capsys, "completion", shell)
    assert "_DSDISTILL_COMPLETE" in script
    assert "dsdistill" in script


def test_an_unknown_shell_is_an_error(capsys: Captured) -> None:
    assert refused(capsys, "completion", "bsh") == "dsdistill: unknown shell 'bsh'; did you mean 'bash'?\n"
