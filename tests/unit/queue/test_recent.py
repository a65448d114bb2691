"""A shared value: one reading for all who ask at the same time, and readings that take a small part of the time."""

import asyncio
import time
from itertools import pairwise

import pytest

from trainer.queue.run_states import Recent


async def test_hundred_callers__share_one_reading_for_twenty_times_its_time() -> None:
    times: list[float] = []

    async def read() -> int:
        times.append(time.monotonic())
        await asyncio.sleep(0.01)
        return len(times)

    recent = Recent(read)
    assert await asyncio.gather(*(recent.get() for _ in range(100))) == [1] * 100
    while len(times) < 3:
        await recent.get()
        await asyncio.sleep(0)
    assert all(later - earlier >= 0.01 + 0.01 / 0.05 for earlier, later in pairwise(times))


async def test_failed_reading__fails_for_its_caller_only() -> None:
    failures = [OSError("away")]

    async def read() -> str:
        if failures:
            raise failures.pop()
        return "back"

    recent = Recent(read)
    with pytest.raises(OSError, match="away"):
        await recent.get()
    assert await recent.get() == "back"
