"""Outputs that cannot be written any more."""

# ruff: noqa: PT012 - what is stopped has several steps

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path

import pytest

from dsdistill.runtime.signals import Interrupted, Stopped, deferred_signals
from dsdistill.runtime.streams import GuardedStream, OutputLost


def closed_pipe() -> GuardedStream:
    """Return a stream into a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return GuardedStream(os.fdopen(writer, "wb"), "utf-8", write_through=True)


def test_a_closed_pipe_stops_the_work_once() -> None:
    with closed_pipe() as stream:
        with pytest.raises(Stopped) as stopped:
            stream.write("first")
            stream.flush()
        assert isinstance(stopped.value.cause, OutputLost)
        assert stopped.value.cause.code == 141
        stream.write("later lines go nowhere")
        stream.flush()


def test_a_run_saves_its_state_first() -> None:
    with (
        closed_pipe() as stream,
        pytest.raises(OutputLost, match="Broken pipe"),
        deferred_signals() as received,
    ):
        print("a line", file=stream, flush=True)
        print("another", file=stream, flush=True)
        assert received == [stream.lost]


def test_another_thread_has_nothing_to_stop() -> None:
    with closed_pipe() as stream:
        thread = threading.Thread(target=print, args=("a line",), kwargs={"file": stream, "flush": True})
        thread.start()
        thread.join()
        assert stream.lost


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_has_the_code_of_bad_input() -> None:
    with GuardedStream(open("/dev/full", "wb", buffering=0), "utf-8") as stream:
        with pytest.raises(Stopped, match="No space left on device") as stopped:
            print("a line", file=stream, flush=True)
        assert stopped.value.cause.code == 2


def test_other_streams_are_as_before() -> None:
    raw = io.BytesIO()
    stream = GuardedStream(raw, "ascii", "replace")
    assert stream.write("±1\n") == 3
    stream.flush()
    assert raw.getvalue() == b"?1\n"
    assert stream.lost is None


def test_a_loss_is_an_interruption() -> None:
    lost = OutputLost("stderr", OSError(errno.EIO, "Input/output error"))
    assert isinstance(lost, Interrupted)
    assert (str(lost), lost.code) == ("cannot write to stderr: Input/output error", 2)
