"""Kills and failing changes at the n-th change of a folder: the result is right, at once or the next time."""

from __future__ import annotations

import errno
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import chosen
from tests.faults.injector import Injector, Outcome
from tests.faults.scenarios import SCENARIOS, Content, Scenario, copied, leftovers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the injector is for Linux")

KILLS, FAILURES = 7, 4
"""Places that a test run disturbs in each scenario."""


@dataclass(frozen=True)
class Undisturbed:
    """A scenario as it goes without a fault.

    Attributes:
        prepared: the folder before the command.
        before, after: what the folder holds before and after it; nothing before, if nothing was prepared.
        changes: that the command makes.
    """

    scenario: Scenario
    prepared: Path
    before: Content | None
    after: Content
    changes: int


@pytest.fixture(scope="module", params=SCENARIOS, ids=lambda scenario: scenario.name)
def undisturbed(
    request: pytest.FixtureRequest, injector: Injector, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    scenario, folder = request.param, tmp_path_factory.mktemp("scenario")
    scenario.prepare(injector, folder / "prepared")
    done = copied(folder / "prepared", folder / "done")
    outcome = injector.run(done, scenario.words)
    assert outcome.code == 0, outcome.text
    assert list(leftovers(done)) == []
    before = scenario.content(folder / "prepared") if scenario.before else None
    return Undisturbed(scenario, folder / "prepared", before, scenario.content(done), outcome.changes)


def is_refusal(outcome: Outcome) -> bool:
    """Whether a command ended with one line for the user."""
    last = outcome.text.strip().splitlines()[-1:]
    return outcome.code == 2 and "Traceback" not in outcome.text and last[0].startswith("dsdistill: ")


def holds(scenario: Scenario, folder: Path, *contents: Content | None) -> bool:
    """Whether the output is there, whole, and one of these."""
    try:
        return scenario.content(folder) in contents
    except Exception:
        return False


def lies_between(before: Content, content: Content, after: Content) -> bool:
    """Whether an output is as before or after a command, or has the first rows that the command adds."""
    rows = {"rows": content.get("rows")}
    return content in (before, after) or (
        content == before | rows and content["rows"] == after["rows"][: len(content["rows"])]
    )


def ends_right(injector: Injector, case: Undisturbed, folder: Path) -> None:
    """Check what a fault has left: an earlier file is whole, and the same command again gives the result."""
    if case.before is not None:
        assert lies_between(case.before, case.scenario.content(folder), case.after), (
            "the earlier file is damaged"
        )
    if not holds(case.scenario, folder, case.after):
        again = case.scenario.repeat(injector, folder)
        assert again.code == 0, again.text
    assert holds(case.scenario, folder, case.after), "the result differs"


def test_a_killed_command_goes_on(
    undisturbed: Undisturbed, injector: Injector, tally: Counter[str], tmp_path: Path
) -> None:
    for at in chosen(range(1, undisturbed.changes + 1), KILLS):
        folder = copied(undisturbed.prepared, tmp_path / str(at))
        outcome = injector.run(folder, undisturbed.scenario.words, at=at)
        assert outcome.code == -9, f"change {at}: {outcome.text}"
        ends_right(injector, undisturbed, folder)
        tally["kills"] += 1


FAULTS = {
    "a full disk": (errno.ENOSPC, True),
    "a moment without space": (errno.ENOSPC, False),
    "a failing disk": (errno.EIO, False),
    "a disk that becomes read-only": (errno.EROFS, True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_change_is_refused_or_harmless(
    fault: str, undisturbed: Undisturbed, injector: Injector, tally: Counter[str], tmp_path: Path
) -> None:
    error, lasting = FAULTS[fault]
    for at in chosen(range(1, undisturbed.changes + 1), FAILURES):
        folder = copied(undisturbed.prepared, tmp_path / str(at))
        outcome = injector.run(folder, undisturbed.scenario.words, at=at, error=error, lasting=lasting)
        if outcome.code == 0:
            assert holds(undisturbed.scenario, folder, undisturbed.after), f"change {at}: a wrong result"
        else:
            assert is_refusal(outcome), f"change {at}, code {outcome.code}: {outcome.text}"
        ends_right(injector, undisturbed, folder)
        tally["failing changes"] += 1
        tally["failing changes refused"] += outcome.code == 2
