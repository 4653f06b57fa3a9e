"""How OpenMP's threads wait: a default that the user's own choice precedes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dsdistill.runtime.waiting import SPINS, choose_waiting

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.fixture(autouse=True)
def _undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOICES:
        monkeypatch.setenv(name, "")  # so that what is set here goes again
        monkeypatch.delenv(name)


def test_without_a_choice_there_is_a_default() -> None:
    choose_waiting()
    assert {name: os.environ.get(name) for name in CHOICES} == {
        "OMP_WAIT_POLICY": None,
        "GOMP_SPINCOUNT": SPINS,
        "KMP_BLOCKTIME": None,
    }


@pytest.mark.parametrize("name", CHOICES)
def test_the_choice_of_the_user_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "ACTIVE")
    choose_waiting()
    assert {each: os.environ[each] for each in CHOICES if each in os.environ} == {name: "ACTIVE"}


def test_the_package_leaves_its_process_alone() -> None:
    """Only the command line chooses, and before torch is loaded."""
    program = (
        "import os, sys, dsdistill\n"
        "assert 'GOMP_SPINCOUNT' not in os.environ\n"
        "import dsdistill.__main__\n"
        "assert 'GOMP_SPINCOUNT' not in os.environ\n"
        "assert 'torch' not in sys.modules and 'typer' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
