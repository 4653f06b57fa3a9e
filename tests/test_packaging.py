"""What is published: metadata, licence, extras, the content of wheel and sdist, workflows and templates."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import dsdistill

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PACKAGE = Path(dsdistill.__file__).parent


# Metadata ---------------------------------------------------------------------------------------------------


def test_the_licence_is_apache_2() -> None:
    assert (PROJECT["license"], PROJECT["license-files"]) == ("Apache-2.0", ["LICENSE"])
    text = " ".join((ROOT / "LICENSE").read_text().split())
    assert text.startswith("Apache License Version 2.0, January 2004")
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_citation_names_the_same_program_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format asks for
    same = {"title": "name", "version": "version", "license": "license", "authors": "authors"}
    assert {key: citation[key] for key in same} == {key: PROJECT[name] for key, name in same.items()}


def test_the_changelog_has_a_heading_for_what_is_not_released_or_for_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] in ("Unreleased", PROJECT["version"])


def test_versions_of_python_are_those_that_are_tested() -> None:
    said = {name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)}
    assert said == set(workflow()["jobs"]["test"]["strategy"]["matrix"]["python"])
    assert PROJECT["requires-python"] == f">={min(said, key=lambda text: int(text[2:]))}"


# Extras -----------------------------------------------------------------------------------------------------


def test_every_extra_has_content_and_all_takes_those_of_users() -> None:
    assert all(EXTRAS.values())
    (everything,) = EXTRAS["all"]
    users = set(everything.removeprefix("dsdistill[").rstrip("]").split(","))
    assert users == EXTRAS.keys() - {"all", "docs", "test", "dev"}


INSTALLED = re.compile(r"pip install (?:-e )?[\"'\\]*(?:\.|dsdistill)\[([\w, ]+)\]")


def test_an_extra_that_a_sentence_or_document_names_exists() -> None:
    files = [*PACKAGE.rglob("*.py"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    lists = [extras for file in files for extras in INSTALLED.findall(file.read_text(encoding="utf-8"))]
    named = {extra.strip() for extras in lists for extra in extras.split(",")}
    assert {"timm", "gpu"} <= named <= EXTRAS.keys()


NAMES = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "tomli_w": "tomli-w",
    "annotated_types": "annotated-types",
    "pydantic_core": "pydantic-core",
    "huggingface_hub": "huggingface-hub",
}
"""Packages whose name differs from what is imported."""
HOSTS = {"IPython"}
"""What only a program that dsdistill runs in can have loaded."""


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the packages of others that are imported by some statements."""
    modules: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    roots = {module.partition(".")[0] for module in modules} - {"dsdistill"} - sys.stdlib_module_names
    return {NAMES.get(root, root) for root in roots - HOSTS}


def test_what_is_imported_is_declared() -> None:
    """At the top of a file only what everyone installs; inside functions and for types extras too."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in PACKAGE.rglob("*.py")]
    core, extra = (
        {re.split(r"[<>=;\[ ]", each)[0] for each in requirements}
        for requirements in (PROJECT["dependencies"], [each for extra in EXTRAS.values() for each in extra])
    )
    assert imported(node for tree in trees for node in tree.body) <= core
    assert imported(node for tree in trees for node in ast.walk(tree)) <= core | extra


# Wheel and sdist --------------------------------------------------------------------------------------------


def checks() -> ModuleType:
    """Load the script that `make package` runs on what it has built."""
    spec = importlib.util.spec_from_file_location("package_checks", ROOT / ".ci" / "package.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHECKS = checks()
FILES: set[str] = CHECKS.package_files()
WHEEL = FILES | {f"dsdistill-0.1.0.dist-info/{name}" for name in ("METADATA", "RECORD", "licenses/LICENSE")}
SDIST = FILES | {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "PKG-INFO"}


def test_data_files_of_the_package_are_declared() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    declared: dict[str, list[str]] = tools["setuptools"]["package-data"]
    packed = {
        path.relative_to(PACKAGE.parent).as_posix()
        for package, patterns in declared.items()
        for pattern in patterns
        for path in (PACKAGE.parent / package.replace(".", "/")).glob(pattern)
    }
    assert packed == {name for name in FILES if not name.endswith(".py")}


def test_what_is_complete_passes_and_what_lacks_a_file_does_not() -> None:
    CHECKS.check_wheel(WHEEL)
    CHECKS.check_sdist(SDIST)
    for absent in ("dsdistill/py.typed", "dsdistill/presets/index.toml", "dsdistill/report/style.css"):
        with pytest.raises(AssertionError, match="lacks"):
            CHECKS.check_wheel(WHEEL - {absent})
        with pytest.raises(AssertionError, match="lacks"):
            CHECKS.check_sdist(SDIST - {absent})
    with pytest.raises(AssertionError, match="lacks the licence"):
        CHECKS.check_wheel({name for name in WHEEL if "licenses" not in name})
    with pytest.raises(AssertionError, match=r"lacks .*LICENSE"):
        CHECKS.check_sdist(SDIST - {"LICENSE"})


@pytest.mark.parametrize("extra", ["tests/test_text.py", "artifacts/dm.json", "benchmarks/speed.py"])
def test_what_stays_in_the_repository_is_found(extra: str) -> None:
    with pytest.raises(AssertionError, match="more than the package"):
        CHECKS.check_wheel(WHEEL | {extra})
    with pytest.raises(AssertionError, match=extra):
        CHECKS.check_sdist(SDIST | {extra})


# Workflows and templates ------------------------------------------------------------------------------------


def workflow() -> dict[str, Any]:
    """Return the workflow of GitHub."""
    parsed: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    return parsed


def test_the_workflow_has_its_jobs_and_calls_targets_that_exist() -> None:
    jobs = workflow()["jobs"]
    assert jobs.keys() == {"lint", "test", "package", "docs"}
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    commands = [step["run"] for step in steps if "run" in step]
    targets = {target for command in commands for target in re.findall(r"^make (\S+)", command, re.M)}
    assert targets == {"lint", "test", "docs"}
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert targets <= known
    scripts = {script for command in commands for script in re.findall(r"python (\S+\.py)", command)}
    assert scripts == {".ci/package.py"}
    assert all((ROOT / script).is_file() for script in scripts)


TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_an_issue_template_is_a_form(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= form.keys()
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert {part["type"] for part in fields} <= {"input", "textarea", "dropdown", "checkboxes"}
    assert all(part["attributes"]["label"] for part in fields)
    names = [part["id"] for part in fields]
    assert len(set(names)) == len(names)
    assert any(part.get("validations", {}).get("required") for part in fields)


def test_there_is_a_form_for_bugs_methods_and_questions() -> None:
    assert [path.stem for path in TEMPLATES] == ["bug", "method", "question"]
    assert "dsdistill info" in TEMPLATES[0].read_text()
    assert (ROOT / ".github" / "pull_request_template.md").is_file()
