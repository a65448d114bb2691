"""Waiting for events, and reading the log meanwhile."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import structlog


class _CaptureLogs(Protocol):
    def __call__(self) -> AbstractContextManager[Sequence[Mapping[str, object]]]: ...


captured_logs: _CaptureLogs = structlog.testing.capture_logs

PATIENCE_SECONDS = 300.0
"""The longest wait of a test for an event: far longer than needed, because the machine may be busy."""

ANSWER_SECONDS = 30.0
"""The time limit of local Discord for a first answer, in place of 3 s, because the machine may be busy."""


async def until(holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until something holds; fails when it takes too long."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


def wait_until(holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """The same where no event loop runs."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def is_awaited(inode: int) -> bool:
    """True while somebody waits for the lock of a file."""
    locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    return any("->" in line and f":{inode} " in line for line in locks)
