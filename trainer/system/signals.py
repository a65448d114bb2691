"""The signals that ask a process to stop."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

_POLL_SECONDS = 0.02


class StopFlag:
    """Set by a signal that asks this process to stop, also by one that comes while another sets it.

    `threading.Event` has a lock, for which the handler of the second signal would wait for ever.
    """

    def __init__(self) -> None:
        self._is_set = False

    def set(self, *_: object) -> None:
        """Set the flag; the arguments are those of a signal's handler."""
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Return whether the flag is set, once it is or after some seconds."""
        deadline = time.monotonic() + seconds
        while not self._is_set and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return self._is_set


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end this process in good order: SIGTERM, Ctrl-C, and the end of its terminal.

    `nohup` ignores the end of the terminal, so that the process outlives it.
    """
    outlives_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *(() if outlives_terminal else (signal.SIGHUP,)))


@contextmanager
def outliving_terminal() -> Iterator[None]:
    """Let the processes that this thread starts in the block outlive the terminal: their parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
