"""Help, lists of names and answers to misspelt words do not wait for torch to load."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from dsdistill.cli import app
from tests.helpers.processes import ROOT

SLOW = {"torch", "torchvision", "numpy", "scipy", "sklearn", "h5py", "kornia", "matplotlib", "PIL", "timm"}
"""What takes long to import."""

VALIDATION = "dsdistill.config.validation"
"""What loads pydantic. Newer typers load it by themselves, for the options of a command."""

Case = tuple[list[str], int, str]
"""Words, the exit code, and a part of what is said."""

COMMANDS = [each.name or each.callback.__name__ for each in app.registered_commands if each.callback]

PLANNED = ("distill", "experts", "label", "evaluate")

ANSWERS: list[Case] = [
    ([], 0, "Usage: dsdistill"),
    (["--help"], 0, "Usage: dsdistill"),
    (["--version"], 0, "dsdistill 0."),
    (["distil"], 2, "unknown command 'distil'; did you mean 'distill'?"),
    (["plan", "distil"], 2, "unknown command 'distil'; did you mean 'distill'?"),
]

OF_COMMANDS: list[Case] = [
    *(([name, "--help"], 0, f"Usage: dsdistill {name}") for name in COMMANDS),
    (["--verison"], 2, "--version"),
    (["distill", "--datase", "digits"], 2, "--dataset"),
    *((["plan", name, "--help"], 0, f"Usage: dsdistill plan {name}") for name in PLANNED),
    (["plan", "--help"], 0, "Usage: dsdistill plan"),
    (["plan", "distill", "--lr", "0.5"], 2, "no such option: --lr; say --set optimiser.lr=VALUE"),
    (["distill", "--lr", "0.5"], 2, "no such option: --lr; say --set optimiser.lr=VALUE"),
    (["distill", "--batch-real", "9"], 2, "no such option: --batch-real; say --set engine.batch_real=VALUE"),
    (["experts", "--weight-decay", "0"], 2, "say --set weight_decay=VALUE"),
    (["distill", "--dataset", "digits"], 2, "--output"),
    (["evaluate"], 2, "Missing argument"),
    (["datasets"], 0, "cifar10 "),
    (["protocols"], 0, "tiny-imagenet from IPC 30"),
    (["protocols", "dsa"], 0, "title ="),
]

OF_RECIPES: list[Case] = [(["methods"], 0, "Zhao & Bilen"), (["methods", "mtt"], 0, "title =")]
"""Which are validated."""

PROGRAM = """
import contextlib, io, json, sys
from dsdistill.__main__ import _load
main, answers = _load(), []
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        from dsdistill.cli import console
        console.out.file = said
        code = main(words)
    answers.append([code, said.getvalue(), sorted(sys.modules)])
print(json.dumps(answers))
"""


def answers(cases: list[Case]) -> list[tuple[int, str, set[str]]]:
    """Return the exit code, the text, and the modules that are loaded after each of some commands."""
    words = json.dumps([words for words, _, _ in cases])
    variables = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-c", PROGRAM, words]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60, check=True)
    return [(code, text, set(modules)) for code, text, modules in json.loads(done.stdout)]


@pytest.mark.parametrize(
    ("cases", "slow"),
    [
        (ANSWERS, {*SLOW, VALIDATION, "pydantic"}),
        (OF_COMMANDS, {*SLOW, VALIDATION}),
        (OF_RECIPES, SLOW),
    ],
    ids=["answers", "of commands", "of recipes"],
)
def test_an_answer_loads_nothing_that_takes_long(cases: list[Case], slow: set[str]) -> None:
    for (words, code, part), (actual, text, modules) in zip(cases, answers(cases), strict=True):
        assert (actual, modules & slow) == (code, set()), words
        assert part in text, words


def test_the_program_loads_nothing_else_before_it_answers() -> None:
    """Including what stands around the command: streams, signals, and how threads wait."""
    command = [sys.executable, "-X", "importtime", "-m", "dsdistill", "--version"]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60, check=True)
    assert done.stdout.startswith("dsdistill 0.")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "dsdistill.cli" in imported
    assert not imported & {*SLOW, VALIDATION, "pydantic"}
