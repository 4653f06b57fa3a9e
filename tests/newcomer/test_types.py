"""A script that uses the public names is checked by `mypy --strict`, as the package says that it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "complaint"),
    [("", ""), ("first(3)", 'has incompatible type "int"'), ('dsdistill.distil("a.h5")', "has no attribute")],
)
def test_a_users_script_is_checked(tmp_path: Path, line: str, complaint: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"{SCRIPT}\n{line}\n")
    options = ["--strict", "--no-error-summary", "--cache-dir", ".mypy_cache/strict"]
    out, err, code = api.run([*options, str(script)])
    assert not err
    assert code == bool(complaint), out
    assert complaint in out
    assert out.count("error:") == code
