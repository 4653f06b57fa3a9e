"""The command that follows a distillation: it evaluates the set, or makes the labels that this will take."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsdistill.errors import UserError

if TYPE_CHECKING:
    from dsdistill.distillation.summary import Summary
    from dsdistill.protocol import Protocol


def after_distilling(summary: Summary) -> str:
    """Return the command, by the protocol of the run; the teachers are those of the run, if it has any.

    Data to transfer to are the user's to name.
    """
    from dsdistill.files import read_toml

    with contextlib.suppress(UserError):
        config = read_toml(summary.run_dir / "config.toml")
        protocol = _protocol(config)
        teacher = ["--teacher", config["engine"]["supply"].get("path") or "FILE"]
        if protocol.transfer:
            return _command("evaluate", summary.path, *teacher, "--transfer", "DATA")
        if protocol.labels.source in ("static", "views"):
            target = summary.path.with_name(f"{summary.path.stem}-labelled.h5")
            return _command("label", summary.path, *teacher, *_views(protocol), "-o", str(target))
        online = protocol.labels.source == "teacher"
        return _command("evaluate", summary.path, *(teacher if online else []), *_own_network(config))
    return _command("evaluate", summary.path)


def _command(name: str, path: Path, *words: str) -> str:
    return shlex.join(["dsdistill", name, str(path), *words])


def _protocol(config: dict[str, Any]) -> Protocol:
    from dsdistill.config.ipc import typical
    from dsdistill.protocol import load_protocol

    ipc = config["ipc"]
    counts = tuple(ipc) if isinstance(ipc, list) else ipc
    return load_protocol(config["protocol"], config["data"]["name"], typical(counts))


def _views(protocol: Protocol) -> list[str]:
    """Return the options of labelling that make the views which students of a protocol replay."""
    if protocol.labels.source != "views":
        return []
    words = ["--views", str(protocol.views_wanted)]
    words += ["--batch-size", str(protocol.batch_size)]
    if protocol.labels.teacher_mode == "train":  # then labels depend on what is normalised together
        words += ["--mode", "train"]
        words += ["--parts", str(protocol.accumulate)] if protocol.accumulate > 1 else []
    return words + (["--encoding", "distances"] if protocol.labels.loss == "dbr" else [])


def _own_network(config: dict[str, Any]) -> list[str]:
    """Name code of the user's own, as a set does not load it."""
    from dsdistill.networks.names import is_known
    from dsdistill.plugs import names_in

    network = str(config.get("student") or config.get("network", ""))
    own = any(":" in name and not is_known(name) for name in names_in(network))
    return ["--networks", network] if own else []
