"""Check the wheel and the sdist in a folder, install the wheel in a new environment, and run it there.

    python .ci/package.py dist            # the new environment sees the packages of this one: seconds
    python .ci/package.py dist --bare     # it gets its own from the index: minutes

A file that is missing, one too many, or a command that fails ends this with an error.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRESENT = ("py.typed", "presets/index.toml", "presets/published.toml", "presets/recipes/dm.toml")
"""Files of the package that are not code."""
ABSENT = ("tests", "artifacts", "benchmarks", "results", ".ci", ".github")
"""Folders of the repository that stay there."""
DISTRIBUTED = ("LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml")
"""Files beside the package that the sdist has."""


def main(folder: Path, bare: bool) -> None:
    """Check the one wheel and the one sdist of a folder."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        check_wheel(archive.namelist())
    with tarfile.open(sdist) as packed:
        check_sdist([name.partition("/")[2] for name in packed.getnames()])
    with tempfile.TemporaryDirectory() as temporary:
        try_out(wheel, Path(temporary), bare)
    print(f"{wheel.name} and {sdist.name} are complete, and the wheel works")


def package_files() -> set[str]:
    """Return all files of the package; notes for those who work on it (README.md) are none of its own."""
    files = (path for path in (ROOT / "dsdistill").rglob("*") if path.is_file())
    names = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    return {name for name in names if not name.endswith("README.md")}


def check_wheel(names: Iterable[str]) -> None:
    """Check that a wheel has every file of the package, the licence, and nothing else."""
    found = set(names)
    package = {name for name in found if name.startswith("dsdistill/")}
    about = {name.partition("/")[2] for name in found - package}
    assert {f"dsdistill/{name}" for name in PRESENT} <= package, f"the wheel lacks one of {PRESENT}"
    assert not (absent := package_files() - package), f"the wheel lacks {sorted(absent)}"
    assert not (extra := package - package_files()), f"the wheel has {sorted(extra)} besides"
    assert "licenses/LICENSE" in about, "the wheel lacks the licence"
    assert {name.split("/")[0] for name in found} - {"dsdistill"} == {
        name.split("/")[0] for name in found if ".dist-info/" in name
    }, "the wheel has more than the package"


def check_sdist(names: Iterable[str]) -> None:
    """Check that an sdist has the package and what belongs to it, and no tests."""
    found = set(names)
    assert set(DISTRIBUTED) <= found, f"the sdist lacks {sorted(set(DISTRIBUTED) - found)}"
    assert not (extra := {name for name in found if name.split("/")[0] in ABSENT}), f"the sdist has {extra}"
    assert package_files() <= found, f"the sdist lacks {sorted(package_files() - found)}"


def try_out(wheel: Path, folder: Path, bare: bool) -> None:
    """Install a wheel in a new environment, and run its commands there, away from the repository."""
    home = folder / "environment"
    venv.create(home, with_pip=bare)
    python = home / "bin" / "python"
    pip = [python, "-m", "pip"] if bare else [sys.executable, "-m", "pip", "--python", python]
    run([*pip, "install", "--quiet", *([] if bare else ["--no-deps"]), wheel.resolve()], folder)
    if not bare:  # a path file adds the packages of this environment, but not its editable installs
        (packages,) = home.glob("lib/python*/site-packages")
        (packages / "host.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run([python, "-c", "import dsdistill; print(dsdistill.__file__)"], folder)
    assert Path(where.strip()).is_relative_to(home), f"another dsdistill was run: {where}"
    command = home / "bin" / "dsdistill"
    assert run([command, "--version"], folder).startswith("dsdistill ")
    assert "dm" in run([command, "methods"], folder).split()
    assert "Usage: dsdistill" in run([command, "--help"], folder)
    if bare:
        output = folder / "digits.h5"
        run([command, "distill", "--dataset", "digits", "--ipc", 1, "--iterations", 3, "-o", output], folder)
        run([command, "evaluate", output, "--epochs", "2", "--repeats", "1"], folder)
        run([command, "show", output], folder)


def run(words: Sequence[object], folder: Path) -> str:
    """Run a command in a folder; return what it printed."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, words)), cwd=folder, env=variables, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), bare="--bare" in sys.argv)
