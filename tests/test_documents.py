"""What README, the site and the notebooks show works as it stands there."""

from __future__ import annotations

import dataclasses
import doctest
import functools
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml

import dsdistill
from dsdistill.bench.suite import load_suite
from dsdistill.cli import app
from dsdistill.config.options import known_keys
from dsdistill.config.recipe import EXPERT_RECIPES, RECIPES, load_recipe
from dsdistill.distillation.config import RunConfig
from dsdistill.experts.config import ExpertConfig
from dsdistill.protocol import PROTOCOLS
from dsdistill.storage import set_file
from tests.helpers import documents
from tests.helpers.cli import pictures
from tests.helpers.documents import NOTEBOOKS, PAGES, ROOT

README = ROOT / "README.md"
CAPS = {
    "distill": {"iterations": 2, "seconds": None},
    "evaluate": {"epochs": 1, "repeats": 1},
    "train_experts": {"count": 1, "epochs": 1},
}
"""What takes long on a page takes a moment in its test."""
DEFAULTS = {"distill": {"network": "convnet2-w8"}}
GIVEN = {"digits.h5", "set.h5", "experts.h5", "soft.h5"}


def with_blocks(language: str) -> list[Any]:
    return [pytest.param(page, id=page.name) for page in PAGES if documents.blocks(page, language)]


@pytest.fixture
def workplace(
    finished: Path, pool: Path, data_home: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Stand in a folder with the files that pages speak of; whatever is shown there takes a moment."""
    for name in ("digits.h5", "set.h5"):
        shutil.copy(finished, tmp_path / name)
    shutil.copy(pool, tmp_path / "experts.h5")
    made = set_file.read(finished)
    logits = torch.eye(len(made.classes))[made.labels]
    set_file.write(tmp_path / "soft.h5", dataclasses.replace(made, soft_labels=logits))
    pictures(tmp_path / "pets", {"cat": 6, "dog": 5})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return tmp_path


def capped(name: str) -> Callable[..., Any]:
    function = getattr(dsdistill, name)

    @functools.wraps(function)
    def brief(*args: Any, **options: Any) -> Any:
        return function(*args, **(DEFAULTS.get(name, {}) | options | CAPS[name]))

    return brief


@pytest.mark.usefixtures("plugs")
@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_on_a_page_runs(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CAPS:
        monkeypatch.setattr(dsdistill, name, capped(name))
    documents.run(documents.blocks(page, "python"), page.name)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "docs" / "examples").glob("*.py")), ids=lambda file: file.stem
)
@pytest.mark.usefixtures("plugs")
def test_an_example_runs(file: Path, workplace: Path) -> None:
    """The program that a page shows distils with what it registers."""
    assert file in documents.shown_files(ROOT / "docs" / "extending.md")
    code = (
        file.read_text().replace("iterations=20", "iterations=2").replace("epochs=20", "epochs=1, repeats=1")
    )
    documents.run([code.replace('__name__ == "__main__"', "True")], file.name)
    (made,) = {path.name for path in workplace.glob("*.h5")} - GIVEN
    assert dsdistill.load(made).images.isfinite().all()


@pytest.mark.parametrize("page", with_blocks("sh"))
def test_commands_on_a_page_are_understood(page: Path) -> None:
    """Every option is known and has a value that it can take."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group)
    shown = documents.commands(page)
    assert shown
    for command, *words in shown:
        known: Any = group.get_command(context, command)
        assert known, command
        if words and words[0] in (inner := getattr(known, "commands", {})):
            known, words = inner[words[0]], words[1:]
        known.make_context(command, words)  # raises otherwise


@pytest.mark.parametrize("page", with_blocks("toml"))
def test_settings_on_a_page_are_valid(page: Path, tmp_path: Path) -> None:
    for text in documents.blocks(page, "toml"):
        file = tmp_path / "mine.toml"
        file.write_text(text)
        load = load_suite if "datasets" in tomllib.loads(text) else load_recipe
        load(str(file))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, workplace: Path) -> None:
    documents.run(["".join(cell["source"]) for cell in documents.cells(notebook)], notebook.name)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(notebook: Path) -> None:
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in documents.cells(notebook)
    )


def test_the_file_is_read_by_stock_h5py(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "file-format.md"
    (script,) = (code for code in documents.blocks(page, "python") if "import h5py" in code)
    assert "dsdistill" not in script
    assert len(script.strip().splitlines()) <= 12
    scope = documents.run([script], page.name)
    expected = dsdistill.load("digits.h5")
    torch.testing.assert_close(scope["inputs"].float(), expected.images)
    assert scope["labels"].tolist() == expected.labels.tolist()
    assert str(list(expected.classes)) in capsys.readouterr().out


def test_readme_is_short_and_finished() -> None:
    text = README.read_text()
    assert len(text.splitlines()) < 120
    assert not re.findall(r"\b(?!DSDISTILL_DATA|OMP_WAIT|GOMP_SPIN|KMP_BLOCK)[A-Z]{3,}_[A-Z]{3,}\b", text)


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Return the pages that are made from the code."""
    return documents.generated_pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_of_a_page_lead_somewhere(page: Path, pages: dict[str, str]) -> None:
    made = {ROOT / "docs" / name for name in pages}
    targets = {(page.parent / target).resolve() for target in documents.links(page)}
    assert [target for target in targets if target not in made and not target.exists()] == []


def test_the_menu_has_every_page(pages: dict[str, str]) -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    menu = set(re.findall(r": (\S+\.md)$", text, re.M))
    written = {page.name for page in PAGES if page.parent == ROOT / "docs"}
    assert menu == written | set(pages) | {"CONTRIBUTING.md", "artifacts/README.md"}
    assert yaml.safe_load(text)["strict"] is True


@pytest.mark.parametrize("kind", [RunConfig, ExpertConfig])
def test_every_option_is_listed_with_its_meaning(kind: type[Any], pages: dict[str, str]) -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| .+ \| .+ \| (.*) \|$", pages["options.md"], re.M)
    assert set(known_keys(kind)) <= {key for key, _ in rows}
    assert [key for key, meaning in rows if not meaning.strip()] == []


def test_defaults_are_those_of_the_code(pages: dict[str, str]) -> None:
    """Also where a table is the default of another, and where classes of one union differ."""
    page = pages["options.md"].partition("\n## Of the training")[0]
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| .+? \| `?(.+?)`? \| ", page, re.M))
    assert rows["engine.student.learning.lr"] == "1e-05"
    assert rows["optimiser.lr"] == "1"
    assert rows["compute.device"] == "auto"
    assert rows["data.test_fraction"] == "0.2"
    assert rows["iterations"].startswith("set by")


def test_every_command_is_listed_with_its_options(pages: dict[str, str]) -> None:
    group: Any = typer.main.get_command(app)
    context = typer.Context(group)
    for name in group.list_commands(context):
        section = pages["commands.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        options = group.get_command(context, name).params
        shown = [option.opts[0] for option in options if not getattr(option, "hidden", False)]
        assert [each for each in shown if each.startswith("--") and f"`{each}`" not in section] == [], name


def test_every_preset_is_listed(pages: dict[str, str]) -> None:
    for name in RECIPES.names():
        assert f"\n## {name}\n" in pages["recipes.md"]
    for name in EXPERT_RECIPES.names():
        assert f"{{#experts-{name}}}" in pages["recipes.md"]
    for name in PROTOCOLS.names():
        assert f"\n## {name}\n" in pages["protocols.md"]
    assert "| cifar10 from IPC 75 | `optimiser.lr = 10.0` | README of the code" in pages["recipes.md"]


@pytest.mark.parametrize("name", ["reference.text", "reference.options", "doctests"])
def test_examples_in_what_makes_the_site_run(name: str) -> None:
    if name == "doctests":
        pytest.importorskip("griffe")
    result = doctest.testmod(documents.builder(name))
    assert (result.failed, result.attempted > 0) == (0, True)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    api = (tmp_path / "api" / "index.html").read_text()
    public = set(dsdistill.__all__) - {"__version__"}
    assert [name for name in public if f'id="dsdistill.{name}"' not in api] == []
