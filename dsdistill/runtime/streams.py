"""stdout and stderr of the command line. An output that is closed or full stops the work; it breaks nothing.

``dsdistill distill ... 2>&1 | head -1`` closes both after one line. The next line then asks the work to stop
(`signals.stop`), so that a run saves its state, and all later lines go nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys

from dsdistill.runtime import signals
from dsdistill.runtime.signals import Interrupted

_SIGPIPE = getattr(signal, "SIGPIPE", 13)  # Windows lacks it, not the pipes


class OutputLost(Interrupted):
    """An output cannot be written any more.

    Attributes:
        code: 141, as of a program that a broken pipe ends; 2 where the pipe is not to blame.
    """

    def __init__(self, name: str, error: OSError) -> None:
        """Describe the loss.

        Args:
            name: of the stream.
            error: of the system.
        """
        super().__init__(_SIGPIPE, f"cannot write to {name}: {error.strerror or error}")
        self.is_closed_pipe = error.errno == errno.EPIPE

    @property
    def code(self) -> int:
        return 128 + self.signal if self.is_closed_pipe else 2


class GuardedStream(io.TextIOWrapper):
    """A standard stream that asks the work to stop when it can no longer be written.

    Attributes:
        lost: why it cannot; None while it can.
    """

    lost: OutputLost | None = None

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        """Send what is left and all that comes to nowhere, and ask the work to stop."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        self.lost = OutputLost(str(self.name).strip("<>"), error)
        signals.stop(self.lost)


def guard() -> None:
    """Guard stdout and stderr. Characters that they cannot show are replaced.

    A stream that was closed before the process began is opened to nowhere: a file of the work would take its
    number otherwise, and with it whatever is written there.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives
        elif type(stream) is io.TextIOWrapper and stream.fileno() in (1, 2):
            buffered, through, encoding = stream.line_buffering, stream.write_through, stream.encoding
            guarded = GuardedStream(
                stream.detach(), encoding, "replace", line_buffering=buffered, write_through=through
            )
            setattr(sys, name, guarded)
            setattr(sys, f"__{name}__", guarded)


def lost() -> OutputLost | None:
    """Return why a guarded stream cannot be written, after a last try; None if both can."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, GuardedStream)]
    for stream in streams:
        with contextlib.suppress(signals.Stopped):
            stream.flush()
    return next((stream.lost for stream in streams if stream.lost), None)


def say(sentence: str) -> None:
    """Write a line to stderr at once, even inside a signal handler; nothing happens where that fails."""
    with contextlib.suppress(OSError):
        os.write(2, f"{sentence}\n".encode("utf-8", "replace"))
