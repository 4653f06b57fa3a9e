"""What a result was made by: the machine, the packages and this package's own code."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    pass


def machine(device: torch.device) -> str:
    """One line that names the hardware, for provenance."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {torch.get_num_threads()} threads"


def same_machine(one: str, other: str) -> bool:
    """Whether two lines of `machine` name the same hardware, whatever the threads."""
    return one.partition(", ")[0] == other.partition(", ")[0]


def code() -> str:
    """Return a digest of this package's modules: what a result was computed by, between two versions too."""
    folder, digest = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def packages() -> dict[str, str]:
    """Versions of what a result depends on."""
    names = ("dsdistill", "torch", "torchvision", "kornia", "numpy", "h5py", "scikit-learn", "timm")
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
