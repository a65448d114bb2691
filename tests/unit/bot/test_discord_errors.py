"""Errors of Discord: which ones are retried, and when."""

from itertools import islice

import discord

from bot.discord_errors import back_off, retry_after_seconds


def test_rate_limit__says_how_long_to_wait_and_nothing_else_does() -> None:
    assert retry_after_seconds(discord.RateLimited(70.0)) == 70
    assert retry_after_seconds(OSError()) == 0


def test_waits__double_up_to_the_longest_and_are_not_all_the_same() -> None:
    several = [list(islice(back_off(1, 60), 9)) for _ in range(20)]

    for waits in several:
        assert all(most / 2 <= wait <= most for wait, most in zip(waits, (1, 2, 4, 8, 16, 32, 60, 60, 60), strict=True))
    assert len({waits[-1] for waits in several}) > 1
