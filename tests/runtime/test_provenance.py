"""What made a result: machine, packages, code."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import dsdistill
from dsdistill.runtime import provenance

CPU = torch.device("cpu")


@pytest.mark.parametrize(("count", "words"), [(1, "1 thread"), (3, "3 threads")])
def test_the_machine_is_named_in_one_line_with_its_threads(
    count: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    name = provenance.machine_name(CPU)
    assert name.endswith(f", {words}")
    assert "\n" not in name
    assert provenance.same_machine(name, name.partition(", ")[0] + ", 99 threads")
    assert not provenance.same_machine(name, "another CPU, 2 threads")


def test_versions_are_those_of_what_is_installed() -> None:
    versions = provenance.package_versions()
    assert versions["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert versions["dsdistill"] == dsdistill.__version__
    assert {"python", "numpy", "h5py"} <= versions.keys()


def test_the_digest_covers_every_module_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runtime").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "runtime/provenance.py"))
    digests = {provenance.code_digest()}
    for name, text in (("a.py", "x = 1"), ("a.py", "x = 2"), ("b.py", "x = 1"), ("runtime/a.py", "x = 1")):
        (tmp_path / name).write_text(text)
        digests.add(provenance.code_digest())
    assert len(digests) == 5
    (tmp_path / "presets.toml").write_text("x = 1")
    assert provenance.code_digest() in digests


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_commit_is_that_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "package"
    (package / "runtime").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(provenance, "__file__", str(package / "runtime" / "provenance.py"))
    assert provenance.commit() == ""  # no work tree
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "somebody's project")
    assert provenance.commit() == ""  # installed inside it
    git(tmp_path, "add", "site")
    git(tmp_path, "commit", "-m", "the package")
    commit = provenance.commit()
    assert len(commit) == 12
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert provenance.commit() == commit
    (package / "__init__.py").write_text("x = 1")
    assert provenance.commit() == f"{commit} with changes"
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() == ""  # no git
