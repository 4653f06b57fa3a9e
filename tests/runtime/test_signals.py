"""SIGINT and SIGTERM wait until the state is saved; a second one does not."""

from __future__ import annotations

import signal
import threading

import pytest

from dsdistill.runtime.signals import Interrupted, deferred_signals

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_collected_and_handlers_are_restored(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in NUMBERS]
    with deferred_signals() as received:
        assert received == []
        signal.raise_signal(number)
        assert received == [number]
    assert [signal.getsignal(each) for each in NUMBERS] == before


def test_a_second_signal_acts_as_usual() -> None:
    def interrupt_twice() -> None:
        with deferred_signals() as received:
            signal.raise_signal(signal.SIGINT)
            assert received == [signal.SIGINT]
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()


def test_other_threads_collect_nothing() -> None:
    lists: list[list[int]] = []

    def work() -> None:
        with deferred_signals() as received:
            lists.append(received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert lists == [[]]


def test_an_interruption_names_its_signal() -> None:
    stop = Interrupted(signal.SIGTERM)
    assert (str(stop), stop.signal) == ("stopped by SIGTERM", 15)
