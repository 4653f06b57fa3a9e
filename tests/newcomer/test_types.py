"""A script that uses the public names is checked by `mypy --strict`, as the package says that it is typed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import dsdistill

SCRIPT = """
import dsdistill
from torch import Tensor

def accuracy(path: str) -> float:
    summary: dsdistill.Summary = dsdistill.distill(path, dataset="digits", method="dm", ipc=1, iterations=3)
    report = dsdistill.evaluate(summary.path, protocol="dm", epochs=2, repeats=1)
    return max(row.mean for row in report.rows)

def first(path: str) -> Tensor:
    data: dsdistill.DistilledDataset = dsdistill.load(path)
    images: Tensor = data.images
    return images[0]

try:
    print(dsdistill.__version__, accuracy("digits.h5"), first("digits.h5").shape)
except dsdistill.UserError as error:
    print(error)
"""


WRONG = """
import dsdistill
dsdistill.distil("digits.h5")
dsdistill.load(3)
dsdistill.evaluate("digits.h5", epoch=3)
"""


@pytest.mark.slow
def test_a_users_script_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(dsdistill.__file__).parents[1]
    if root.name != "site-packages":  # mypy finds what is installed, and not what is imported from here
        monkeypatch.setenv("MYPYPATH", str(root))
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(SCRIPT)
    wrong.write_text(WRONG)
    options = ["--strict", "--no-error-summary", "--cache-dir", ".mypy_cache/strict"]
    options += ["--follow-imports=silent"]  # a package that is a source tree is not the user's script
    # In a process of its own, because mypy raises the limit of recursion of the process it runs in.
    command = [sys.executable, "-m", "mypy", *options, str(right), str(wrong)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not ended.stderr
    assert re.findall(r"(\w+\.py:\d+): error", ended.stdout) == ["wrong.py:3", "wrong.py:4", "wrong.py:5"]
