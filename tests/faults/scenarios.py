"""Short commands to disturb, and what they leave in a folder when nothing does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsdistill.storage import set_file, set_results
from dsdistill.storage.expert_file import ExpertFile
from tests.faults.injector import Injector, Outcome

Content = dict[str, Any]
"""What has to be the same, by name."""

_DATA = ["--dataset", "digits", "--network", "convnet2-w8", "--set", "compute.compile=false"]
_DISTILL = ["distill", *_DATA, "--method", "dm", "--ipc", "1", "--iterations", "4", "-o", "set.h5"]
_DISTILL += ["--set", "checkpoint.iterations=2", "--set", "checkpoint.snapshots=2"]
_EXPERTS = ["experts", *_DATA, "--recipe", "mtt", "--epochs", "2", "-o", "experts.h5", "--count"]
_LABEL = ["label", "set.h5", "--teacher", "experts.h5", "-o", "views.h5", "--views", "3", "--batch-size", "4"]
_EVALUATE = ["evaluate", "set.h5", "--epochs", "1", "--repeats", "1", "--baselines", "random"]


def content_of_set(folder: Path) -> Content:
    """Pixels and labels of the set, and the accuracies of its results."""
    path = folder / "set.h5"
    distilled = set_file.read(path)
    rows = [(row["network"], row["set"], row["values"]) for row in set_results.results(path)]
    return {
        "images": distilled.images.numpy().tobytes(),
        "labels": distilled.labels.tolist(),
        "seed": distilled.attributes["seed"],
        "rows": rows,
    }


def content_of_experts(folder: Path) -> Content:
    """Every weight of every expert, and the outcome of its training."""
    experts = ExpertFile.open(folder / "experts.h5")
    try:
        weights = {
            (expert, epoch): experts.flat(expert, epoch).numpy().tobytes()
            for expert in range(experts.count)
            for epoch in experts.epochs
        }
        return {"weights": weights, "losses": [record.loss for record in experts.training]}
    finally:
        experts.close()


def content_of_labels(folder: Path) -> Content:
    """Every column of the views; nothing where there are none yet."""
    if not (folder / "views.h5").exists():
        return {}
    views = set_file.read(folder / "views.h5").views
    assert views is not None
    return {name: column.numpy().tobytes() for name, column in views.columns().items()} | views.about()


def content_of_export(folder: Path) -> Content:
    """The bytes of every exported file."""
    files = [folder / "out.pt", folder / "out.h5", *folder.glob("out/**/*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.is_file()}


@dataclass(frozen=True)
class Scenario:
    """A command, what runs before it, and how it is repeated after a fault."""

    name: str
    words: list[str]
    content: Callable[[Path], Content]
    before: tuple[list[str], ...] = ()
    again: tuple[str, ...] = ("--resume",)

    def prepare(self, injector: Injector, folder: Path) -> None:
        """Run what comes before, undisturbed."""
        folder.mkdir()
        for words in self.before:
            outcome = injector.run(folder, words)
            assert outcome.code == 0, outcome.text

    def repeat(self, injector: Injector, folder: Path) -> Outcome:
        """Run the command again, undisturbed, as the user is told to."""
        return injector.run(folder, [*self.words, *self.again])


SCENARIOS = [
    Scenario("distill", _DISTILL, content_of_set),
    Scenario("experts", [*_EXPERTS, "1"], content_of_experts),
    Scenario("more-experts", [*_EXPERTS, "2"], content_of_experts, before=([*_EXPERTS, "1"],)),
    Scenario("label", _LABEL, content_of_labels, before=(_DISTILL, [*_EXPERTS, "1"])),
    Scenario("evaluate", _EVALUATE, content_of_set, before=(_DISTILL,)),
    *(
        Scenario(
            f"export-{kind}",
            ["export", "set.h5", "--to", kind, "-o", f"out{suffix}"],
            content_of_export,
            before=(_DISTILL,),
            again=(),
        )
        for kind, suffix in (("pt", ".pt"), ("png", ""), ("h5", ".h5"), ("ddranking", ""))
    ),
]

REHEARSAL = [_DISTILL, [*_EXPERTS, "1"], *(each.words for each in SCENARIOS if _DISTILL in each.before)]
"""Commands that use, in this order in one folder, all that those of the scenarios use."""


def leftovers(folder: Path) -> Iterator[str]:
    """Yield what no finished command leaves: temporary files, locks, parts of experts."""
    for path in folder.rglob("*"):
        if path.name.endswith((".part", ".parts", ".running", ".changing")):
            yield path.relative_to(folder).as_posix()


def copied(prepared: Path, folder: Path) -> Path:
    """Copy a prepared folder, so that a command starts from the same state every time."""
    shutil.copytree(prepared, folder)
    return folder
