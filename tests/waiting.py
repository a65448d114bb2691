"""Waiting for what happens in its own time, and reading what was logged meanwhile."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import structlog


class _CaptureLogs(Protocol):
    def __call__(self) -> AbstractContextManager[Sequence[Mapping[str, object]]]: ...


captured_logs: _CaptureLogs = structlog.testing.capture_logs


async def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something holds; fails when it takes too long."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)
