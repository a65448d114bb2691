"""Turns to write into a channel: one at a time, spaced, new messages first, none lost; waits before retries."""

import asyncio
import time
from itertools import islice, pairwise

import pytest

from bot.rest.pacing import Pace
from trainer.system.retries import back_off

INTERVAL = 0.2


async def test_turns_of_one_channel__are_an_interval_apart_whoever_takes_them() -> None:
    pace = Pace(INTERVAL)
    at: list[float] = []

    async def write(number: int) -> None:
        async with pace.turn(7, is_new=number % 2 == 0):
            at.append(time.monotonic())

    await asyncio.gather(*(write(number) for number in range(6)))
    assert len(at) == 6
    assert min(later - earlier for earlier, later in pairwise(at)) >= INTERVAL


async def test_new_message__comes_before_waiting_edits() -> None:
    pace = Pace(INTERVAL)
    order: list[str] = []

    async def write(name: str) -> None:
        async with pace.turn(7, is_new=name.startswith("final")):
            order.append(name)

    edits = [asyncio.create_task(write(f"edit {number}")) for number in range(3)]
    await asyncio.sleep(0)
    await write("final")
    assert order == ["final"]
    late = asyncio.create_task(write("final 2"))
    await asyncio.gather(*edits, late)
    assert order == ["final", "final 2", "edit 0", "edit 1", "edit 2"]


async def test_writing__is_one_at_a_time() -> None:
    pace = Pace(0.01)
    writing = 0

    async def write() -> None:
        nonlocal writing
        async with pace.turn(7, is_new=True):
            writing += 1
            assert writing == 1
            await asyncio.sleep(0.03)
            writing -= 1

    await asyncio.gather(*(write() for _ in range(4)))


async def test_edit_that_does_not_end__holds_up_no_other_turn() -> None:
    pace = Pace(0.01)
    async with asyncio.timeout(60), pace.turn(7, is_new=False):
        for is_new in (False, True):
            async with pace.turn(7, is_new=is_new):
                pass


async def test_channels__do_not_wait_for_each_other() -> None:
    pace = Pace(3600)
    async with asyncio.timeout(60):
        for channel_id in range(5):
            async with pace.turn(channel_id, is_new=True):
                pass


async def test_turn__that_fails_or_is_cancelled_delays_no_other() -> None:
    pace = Pace(0.01)
    with pytest.raises(ValueError, match="refused"):
        async with pace.turn(7, is_new=True):
            raise ValueError("refused")
    waiting = asyncio.create_task(pace.turn(7, is_new=False).__aenter__())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(60), pace.turn(7, is_new=False):
        pass


def test_waits__double_up_to_the_longest_and_are_not_all_the_same() -> None:
    several = [list(islice(back_off(1, 60), 9)) for _ in range(20)]
    for waits in several:
        assert all(most / 2 <= wait <= most for wait, most in zip(waits, (1, 2, 4, 8, 16, 32, 60, 60, 60), strict=True))
    assert len({waits[-1] for waits in several}) > 1
