"""The provenance of a result: the machine, the versions of packages, and this package's code."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch


def machine_name(device: torch.device) -> str:
    """Return one line that names the hardware, and on a CPU the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    count = torch.get_num_threads()
    return f"{name}, {count} thread{'s' * (count != 1)}"


def same_machine(one: str, other: str) -> bool:
    """Whether two lines of `machine_name` name the same hardware, with any number of threads."""
    return one.partition(", ")[0] == other.partition(", ")[0]


def code_digest() -> str:
    """Return a SHA-256 digest of this package's modules; it also tells apart states between two versions."""
    folder, digest = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def commit() -> str:
    """Return the git commit that this package lies in, and whether files differ from it.

    Returns:
        such as "1f2e3d4c5b6a" or "1f2e3d4c5b6a with changes"; empty where the package is no part of a work
        tree, or there is no git.
    """
    folder = Path(__file__).parent.parent
    if not _git(folder, "ls-files", "--", "__init__.py"):  # a work tree around an installed package
        return ""
    return _git(folder, "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty= with changes")


def _git(folder: Path, *words: str) -> str:
    """Return what git says in a folder; empty where it fails."""
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    environment = {key: value for key, value in os.environ.items() if key not in elsewhere}
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    names = ("dsdistill", "torch", "torchvision", "kornia", "numpy", "h5py", "scikit-learn", "timm")
    versions = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
