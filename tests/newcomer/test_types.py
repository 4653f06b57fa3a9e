"""A script that uses the public names is checked by `mypy --strict`, as the package says that it is typed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tomli_w

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
print(dsdistill.Any)
def networks(names: list) -> None: ...
"""


REPOSITORY = Path(__file__).parents[2]
STRICT = """
disallow_any_generics disallow_subclassing_any disallow_untyped_calls
disallow_untyped_decorators strict_equality extra_checks warn_return_any
"""
"""What `--strict` checks in a script beyond the settings of the package."""


def settings(folder: Path) -> Path:
    """Write settings for mypy: those of the package, so that `make lint` has parsed torch; for scripts, all.

    Names of the package count if it exports them, as `--strict` has it.
    """
    mypy = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["mypy"]
    del mypy["files"]
    mypy["overrides"] = [
        {"module": ["right", "wrong"], **dict.fromkeys(STRICT.split(), True)},
        {"module": "dsdistill", "implicit_reexport": False},
    ]
    path = folder / "mypy.toml"
    path.write_text(tomli_w.dumps({"tool": {"mypy": mypy}}))
    return path


@pytest.mark.slow
def test_a_users_script_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(dsdistill.__file__).parents[1]
    if root.name != "site-packages":  # mypy finds what is installed, and not what is imported from here
        monkeypatch.setenv("MYPYPATH", str(root))
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(SCRIPT)
    wrong.write_text(WRONG)
    cache = tmp_path / "cache"
    if (REPOSITORY / ".mypy_cache").is_dir():
        shutil.copytree(REPOSITORY / ".mypy_cache", cache)  # that of `make lint` stays as it is
    options = ["--config-file", str(settings(tmp_path)), "--no-error-summary", "--cache-dir", str(cache)]
    # In a process of its own, because mypy raises the limit of recursion of the process it runs in.
    command = [sys.executable, "-m", "mypy", *options, str(right), str(wrong)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert not ended.stderr
    errors = re.findall(r"((?:right|wrong)\.py:\d+): error", ended.stdout)
    assert errors == [f"wrong.py:{line}" for line in range(3, 8)]
