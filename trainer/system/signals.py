"""The signals that ask a process to stop."""

import signal


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end this process in good order: SIGTERM, Ctrl-C, and the end of its terminal.

    `nohup` ignores the end of the terminal, so that the process outlives it.
    """
    outlives_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *(() if outlives_terminal else (signal.SIGHUP,)))
