"""The signals that ask a process to stop."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

_POLL_SECONDS = 0.02

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
"""Signals that batch systems send some time before a job's end, such as Slurm's `--signal=USR1@60`."""


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
    """Return the signals that end this process in good order.

    They are SIGTERM, Ctrl-C, the warnings of batch systems, and the end of the terminal: `nohup` ignores that one, so
    that the process outlives it.
    """
    outlives_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *WARNINGS, *(() if outlives_terminal else (signal.SIGHUP,)))


def heed_warnings() -> None:
    """Let the warnings of batch systems do in this process what SIGTERM does."""
    for number in WARNINGS:
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGTERM))


@contextmanager
def outliving_terminal() -> Iterator[None]:
    """Let the processes that this thread starts in the block outlive the terminal: their parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
