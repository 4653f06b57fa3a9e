"""A process that runs commands and disturbs them; see ``inject.c`` and ``server.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: its exit code; negative for a signal.
        hangs: whether it had to be killed.
        changes: of the folder, which were made or hit.
        hits: changes that were disturbed.
        text: what it printed.
    """

    code: int
    hangs: bool
    changes: int
    hits: int
    text: str


class Injector:
    """Runs ``dsdistill`` in a folder, in one process for each command."""

    def __init__(self, folder: Path) -> None:
        """Compile the library and start the server.

        Raises:
            OSError, subprocess.CalledProcessError: there is no C compiler, or it fails.
        """
        library = folder / "inject.so"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "inject.c", "-ldl"], check=True
        )
        self._log = folder / "output.txt"
        variables = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self._server = subprocess.Popen(
            [sys.executable, HERE / "server.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=variables,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._server:  # closes its streams and waits for it
            pass

    def run(
        self,
        folder: Path,
        words: Sequence[str],
        *,
        at: int = 0,
        error: int = 0,
        lasting: bool = False,
        memory: int = 0,
        forked: bool = True,
    ) -> Outcome:
        """Run a command in a folder.

        Args:
            at: the change of the folder that is disturbed, from 1; 0 for none.
            error: errno of the failure; 0 kills.
            lasting: whether later changes fail too, as on a disk that stays full.
            memory: bytes that it may take beyond those of an idle command; 0 for any.
            forked: whether in a process of its own; else later ones need not import what it imports.
        """
        request = {"folder": str(folder), "armed": str(folder), "log": str(self._log), "words": list(words)}
        request |= {"at": at, "error": error, "lasting": lasting, "memory": memory, "forked": forked}
        assert self._server.stdin
        assert self._server.stdout
        print(json.dumps(request), file=self._server.stdin, flush=True)
        reply = json.loads(self._server.stdout.readline())
        return Outcome(**reply, text=self._log.read_text(errors="replace"))
