"""Notices that nobody listens for are warnings of Python; each is said once."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path

import pytest

import dsdistill
from dsdistill.runtime.callbacks import Callback, Observer
from tests.helpers.callbacks import unhandled


@pytest.fixture(autouse=True)
def logger(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """Return a logger that stands for the package's: pytest adds handlers to that."""
    return unhandled(monkeypatch)


class Listening(Callback):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def on_notice(self, sentence: str) -> None:
        self.sentences.append(sentence)


class Deaf(Callback):
    """Takes no notices."""


def handler(level: int) -> logging.Handler:
    """Return a handler of a level and above."""
    made = logging.StreamHandler(io.StringIO())
    made.setLevel(level)
    return made


def warned(observer: Observer) -> list[str]:
    """Return what is warned of where an observer gets a notice."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        observer.on_notice("look here")
    assert all(each.category is dsdistill.Notice for each in caught)
    assert all(each.filename == __file__ for each in caught)
    return [str(each.message) for each in caught]


def test_a_notice_without_listeners_is_a_warning() -> None:
    assert warned(Observer([Deaf(), lambda entry: None])) == ["look here"]


def test_a_callback_that_takes_notices_is_enough() -> None:
    listening = Listening()
    assert warned(Observer([Deaf(), listening])) == []
    assert listening.sentences == ["look here"]


def test_a_progress_bar_takes_notices() -> None:
    assert warned(Observer([dsdistill.ProgressBar()])) == []


@pytest.mark.parametrize("depth", [0, 1])
def test_a_handler_of_the_logger_or_above_it_is_enough(logger: logging.Logger, depth: int) -> None:
    logger.parent = logging.Logger("root")
    [logger, logger.parent][depth].addHandler(handler(logging.WARNING))
    assert warned(Observer()) == []


def test_a_handler_of_errors_is_not_enough(logger: logging.Logger) -> None:
    logger.addHandler(handler(logging.ERROR))
    assert warned(Observer()) == ["look here"]


def test_a_logger_that_is_switched_off_is_quiet(logger: logging.Logger) -> None:
    logger.setLevel(logging.ERROR)
    assert warned(Observer()) == []


def test_the_warning_names_the_line_of_the_call(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dsdistill.distill(tmp_path / "set.h5", dataset="digits", ipc=1, iterations=1, resume=True)
    assert str(caught[0].message).endswith("to resume: starting anew")
    assert {(each.category, each.filename) for each in caught} == {(dsdistill.Notice, __file__)}
