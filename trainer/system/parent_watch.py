"""Runs a program and ends it when our parent ends, for systems without a parent-death signal.

Used as `python -m trainer.system.parent_watch PROGRAM ARGUMENT…`. The parent holds the other end of the pipe on
standard input; when the pipe closes, or with a signal to stop, the program receives SIGTERM.
"""

import os
import signal
import subprocess
import sys
import threading

from trainer.system.signals import WARNINGS


def guard(command: list[str]) -> int:
    """Run a command until it ends or our standard input closes; return its exit code."""
    child: subprocess.Popen[bytes] | None = None
    is_told = False

    def end_child(*_: object) -> None:
        nonlocal is_told
        is_told = True
        if child is not None:
            child.terminate()

    def watch_pipe() -> None:
        os.read(0, 1)
        end_child()

    for number in (signal.SIGTERM, *WARNINGS):
        signal.signal(number, end_child)  # before there is a program that we could leave behind
    # it inherits the files that our parent passes on: a lock that the program holds while it lives
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)
    if is_told:
        child.terminate()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch_pipe, daemon=True).start()
    return child.wait()


sys.exit(guard(sys.argv[1:]))
