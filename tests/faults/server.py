"""Runs dsdistill's command line in forked processes, each killed or disturbed at one change of its folder.

Importing torch takes seconds, forking takes milliseconds. What a command imports and keeps for the next one,
the server has after a request to run it here, not forked. Requests and replies are lines of JSON. The process
must have been started with the library of ``inject.c`` preloaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import resource
import signal
import sys
import time
from typing import Any

from dsdistill import cli
from dsdistill.errors import UserError
from dsdistill.storage.expert_file import ExpertFile

LIMIT = 60.0
"""Seconds after which a command counts as hanging."""

library = ctypes.CDLL(None)
for name in ("faults_changes", "faults_hits"):
    getattr(library, name).restype = ctypes.c_long
library.faults_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]


def command(request: dict[str, Any]) -> None:
    """Run one command in a forked process, its output in a file; this does not return."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(request["folder"])
    if memory := request["memory"]:
        resource.setrlimit(resource.RLIMIT_AS, (taken() + memory,) * 2)
    library.faults_arm(os.fsencode(request["armed"]), request["at"], request["error"], request["lasting"])
    code = 1
    try:
        words = request["words"]
        code = print_weights(words[1]) if words[0] == "weights" else cli.main(words)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def rehearse(request: dict[str, Any]) -> int:
    """Run one command in this process, undisturbed, its output in a file."""
    with (
        open(request["log"], "w") as log,
        contextlib.chdir(request["folder"]),
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        return cli.main(request["words"])


def print_weights(path: str) -> int:
    """Print a digest of all weights in a file of experts, as if that were a command."""
    digest = hashlib.sha256()
    try:
        experts = ExpertFile.open(path)
        for expert in range(experts.count):
            for epoch in experts.epochs:
                digest.update(experts.flat(expert, epoch).numpy().tobytes())
    except UserError as error:
        print(f"dsdistill: {error}")
        return 2
    print(digest.hexdigest(), experts.training)
    return 0


def taken() -> int:
    """Return the bytes of address space that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def ended(child: int) -> tuple[int, bool]:
    """Wait for a process; return its status, and whether it had to be killed for hanging."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status, False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1], True


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        library.faults_arm(b"", 0, 0, 0)
        if request["forked"]:
            child = os.fork()
            if not child:
                command(request)
            status, hangs = ended(child)
            code = os.waitstatus_to_exitcode(status)
        else:
            code, hangs = rehearse(request), False
        reply = {
            "code": code,
            "hangs": hangs,
            "changes": library.faults_changes(),
            "hits": library.faults_hits(),
        }
        print(json.dumps(reply), flush=True)


main()
