"""Which runs this machine has compiled: torch keeps their code on disk, so that the same run starts fast.

A run is known by a digest of all that its code follows from. Beside it stands the folder in which torch keeps
the code; where that is gone, the run counts as never compiled. Whether the folder still holds this very code
is not looked at: if it does not, the run compiles for a minute once more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dsdistill.errors import UserError
from dsdistill.files import cache_folder, make_folder, read_text, replace
from dsdistill.runtime import provenance


def digest(device: torch.device, options: Mapping[str, Any]) -> str:
    """Return a digest of all that compiled code follows from: options, code, version of torch, hardware.

    Args:
        device: that computes.
        options: of the run; plain values.
    """
    machine = provenance.machine_name(device)
    parts = [dict(options), provenance.code_digest(), torch.__version__, machine]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def is_compiled(run: str) -> bool:
    """Whether a run of this digest was compiled here, and its code is still on disk."""
    try:
        return Path(read_text(_note(run))).is_dir()
    except (OSError, ValueError):
        return False


def remember(run: str) -> None:
    """Note that a run of this digest is compiled; what hinders the note is no error."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # slow to load; a compiled run has it

    with contextlib.suppress(UserError):
        make_folder(_note(run).parent, parents=True)
        replace(_note(run), cache_dir().encode())


def _note(run: str) -> Path:
    return cache_folder() / "compiled" / run
