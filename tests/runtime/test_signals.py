"""Requests to stop wait until the state is saved; a second Ctrl-C does not."""

# ruff: noqa: PT012 - what is stopped has several steps

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from dsdistill.runtime.signals import NUMBERS, Interrupted, Stopped, deferred_signals, importing, stop


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Handle the signals whose default would end the tests."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number in NUMBERS[1:]:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def numbers(received: list[Interrupted]) -> list[int]:
    return [each.signal for each in received]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_collected_and_handlers_are_restored(number: int) -> None:
    before = [signal.getsignal(each) for each in NUMBERS]
    with pytest.raises(Interrupted) as stopped, deferred_signals() as received:
        assert received == []
        signal.raise_signal(number)
        assert numbers(received) == [number]
    assert stopped.value is received[0]  # nobody had looked
    assert [signal.getsignal(each) for each in NUMBERS] == before


def test_an_error_is_not_hidden_by_a_signal() -> None:
    with pytest.raises(ZeroDivisionError), deferred_signals():
        signal.raise_signal(signal.SIGINT)
        _ = 1 / 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_acts_as_usual(number: int) -> None:
    with pytest.raises(KeyboardInterrupt), deferred_signals() as received:
        signal.raise_signal(number)
        assert numbers(received) == [number]
        signal.raise_signal(number)


@pytest.mark.parametrize("number", NUMBERS[2:])
def test_what_systems_send_twice_waits_twice(number: int) -> None:
    with pytest.raises(Interrupted), deferred_signals() as received:
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert numbers(received) == [number] * 2


def test_ignored_signals_stay_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with deferred_signals() as received:
        signal.raise_signal(signal.SIGTERM)
    assert received == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


class Acknowledging:
    """A handler that is told of deferred signals."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def __call__(self, number: int, frame: FrameType | None) -> Any:
        raise KeyboardInterrupt

    def deferred(self, number: int) -> None:
        self.told.append(number)


def test_the_first_signal_is_acknowledged() -> None:
    handler = Acknowledging()
    for number in NUMBERS:
        signal.signal(number, handler)
    with pytest.raises(Interrupted), deferred_signals():
        for number in NUMBERS:
            signal.raise_signal(number)
    assert handler.told == [NUMBERS[0]]


def test_another_handler_does_in_imports_as_anywhere() -> None:
    handler = Acknowledging()
    signal.signal(signal.SIGTERM, handler)
    with pytest.raises(KeyboardInterrupt), importing():
        signal.raise_signal(signal.SIGTERM)
    assert not hasattr(handler, "unwinds")


def test_other_threads_collect_nothing() -> None:
    lists: list[list[Interrupted]] = []

    def work() -> None:
        with deferred_signals() as received:
            lists.append(received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert lists == [[]]


def test_a_request_to_stop_is_deferred_or_ends_the_work() -> None:
    cause = Interrupted(signal.SIGTERM, "the sky fell")
    with pytest.raises(Interrupted, match="the sky fell"), deferred_signals() as received:
        stop(cause)
        assert received == [cause]
    with pytest.raises(Stopped, match="the sky fell") as stopped:
        stop(cause)
    assert stopped.value.cause is cause
    assert not isinstance(stopped.value, Exception)  # no error to recover from


def test_an_interruption_names_its_signal() -> None:
    interrupted = Interrupted(signal.SIGTERM)
    assert (str(interrupted), interrupted.signal, interrupted.code) == ("stopped by SIGTERM", 15, 143)
