"""Errors of Discord: which ones are retried, and when."""

import discord

from bot.rest.errors import retry_after_seconds


def test_rate_limit__says_how_long_to_wait_and_nothing_else_does() -> None:
    assert (retry_after_seconds(discord.RateLimited(70.0)), retry_after_seconds(OSError())) == (70, 0)
