"""The process of the command line, with programs of a few lines in place of the package's."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# A program that says where it is and then sends itself a signal; `{body}` is what it does.
PROGRAM = """
import os, signal, sys, time
from dsdistill.runtime import program

program._GRACE = 0.3

def stop(number=signal.SIGTERM):
    signal.raise_signal(number)
    time.sleep(60)

def load():
    {load}
    return main

def main():
{body}

program.run(load)
"""


def run(body: str, load: str = "pass") -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a program."""
    text = PROGRAM.format(load=load, body="\n".join("    " + line for line in body.splitlines()))
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_the_code_of_the_program_is_that_of_the_process() -> None:
    assert run("print('±', end='')\nreturn 3") == (3, "±", "")


def test_a_stop_unwinds_the_work_and_leaves_the_output() -> None:
    body = "print('begun')\ntry:\n    stop()\nfinally:\n    print('tidied')"
    assert run(body) == (143, "begun\ntidied\n", "dsdistill: stopped by SIGTERM\n")


def test_imports_are_not_unwound() -> None:
    load = "exec('try:\\n    stop()\\nexcept BaseException: pass')"
    assert run("return 0", load) == (143, "", "dsdistill: stopped by SIGTERM\n")


IMPORTING = "from dsdistill.runtime.signals import importing\nwith importing():\n    "


def test_imports_of_the_work_are_not_unwound_either() -> None:
    body = IMPORTING + "try:\n        stop()\n    except BaseException:\n        pass"
    assert run(body) == (143, "", "dsdistill: stopped by SIGTERM\n")


def test_after_its_imports_the_work_is_unwound() -> None:
    body = IMPORTING + "pass\ntry:\n    stop()\nfinally:\n    print('tidied')"
    assert run(body) == (143, "tidied\n", "dsdistill: stopped by SIGTERM\n")


def test_a_stop_that_is_swallowed_ends_the_work_all_the_same() -> None:
    body = "try:\n    stop()\nexcept BaseException:\n    time.sleep(60)"
    assert run(body) == (143, "", "dsdistill: stopped by SIGTERM\n")


def test_a_stop_inside_a_destructor_prints_no_traceback() -> None:
    body = "class Dying:\n    def __del__(self):\n        stop(signal.SIGINT)\nDying()\ntime.sleep(60)"
    assert run(body) == (130, "", "dsdistill: stopped by SIGINT\n")


def test_a_stop_that_a_destructor_swallows_is_raised_once_more() -> None:
    body = "program._GRACE = 60\nclass Dying:\n    def __del__(self):\n        stop(signal.SIGINT)\n"
    body += "try:\n    Dying()\n    time.sleep(30)\nfinally:\n    print('unwound')"
    assert run(body) == (130, "unwound\n", "dsdistill: stopped by SIGINT\n")


def test_a_second_stop_is_quicker_than_what_the_first_unwinds() -> None:
    body = "program._GRACE = 60\ntry:\n    stop()\nfinally:\n    stop(signal.SIGINT)"
    assert run(body) == (130, "", "dsdistill: stopped by SIGINT\n")


def test_threads_that_still_work_keep_nothing_alive() -> None:
    body = "import threading\nthreading.Thread(target=time.sleep, args=(60,)).start()\nstop()"
    assert run(body) == (143, "", "dsdistill: stopped by SIGTERM\n")


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])
def test_deferred_signals_are_acknowledged_at_once(name: str) -> None:
    body = (
        "from dsdistill.runtime.signals import Interrupted, deferred_signals\n"
        "try:\n"
        "    with deferred_signals() as received:\n"
        f"        signal.raise_signal(signal.{name})\n"
        "        print('saved', file=sys.stderr)\n"
        "except Interrupted as stop:\n"
        "    return stop.code"
    )
    code, _, err = run(body)
    assert code == 128 + signal.Signals[name]
    assert err == f"dsdistill: stopping on {name}: the state is being saved\nsaved\n"


def test_an_error_of_the_program_is_shown() -> None:
    code, _, err = run("raise ValueError('a defect')")
    assert code == 1
    assert err.endswith("ValueError: a defect\n")
