"""What README shows a newcomer works as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import typer
from typer.core import TyperGroup

from dsdistill.cli import app
from dsdistill.data.preprocess import Standardise
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_file_is_read_by_stock_h5py(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    made = DistilledSet(images, torch.tensor([0, 0, 1, 1]), ("cat", "dog"), Standardise.of((0.4,), (0.2,)))
    set_file.write(tmp_path / "digits.h5", made)
    (script,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "import h5py" in code)
    assert "dsdistill" not in script
    assert len(script.strip().splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    scope: dict[str, torch.Tensor] = {}
    exec(script, scope)
    torch.testing.assert_close(scope["inputs"].float(), set_file.load(tmp_path / "digits.h5").images)
    assert scope["labels"].tolist() == [0, 0, 1, 1]
    assert "['cat', 'dog']" in capsys.readouterr().out


def test_commands_in_readme_are_understood() -> None:
    """Every option is known and has a value that it can take."""
    shown = re.findall(r"^dsdistill ([^#\n;]+)|; dsdistill ([^#\n;]+)", README, re.M)
    lines = [shlex.split(first or second) for first, second in shown]
    assert {words[0] for words in lines} >= {"distill", "experts", "evaluate", "export", "bench", "report"}
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for command, *words in lines:
        group.commands[command].make_context(command, words)  # raises otherwise


def test_readme_is_finished_and_its_files_exist() -> None:
    assert not re.findall(r"\b(?!DSDISTILL_DATA|OMP_WAIT|GOMP_SPIN|KMP_BLOCK)[A-Z]{3,}_[A-Z]{3,}\b", README)
    root = Path(__file__).parent.parent
    assert [
        name
        for name in re.findall(r"\]\((?!http)([^)]+)\)", README)
        if not (root / name.partition("#")[0]).exists()
    ] == []
