"""The signals that ask a process to stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


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
