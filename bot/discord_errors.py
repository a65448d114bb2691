"""Discord's refusals by what they mean; the exceptions' own classes are not typed strictly, so they are named here."""

import aiohttp
import discord

HTTP_ERROR: type[discord.DiscordException] = discord.HTTPException
NOT_FOUND: type[discord.DiscordException] = discord.NotFound
CALL_ERRORS: tuple[type[Exception], ...] = (HTTP_ERROR, discord.RateLimited, aiohttp.ClientError, OSError)
"""What a call to Discord may raise: its refusal, or the way to it."""

_DM_CLOSED = (50007, 50278)  # "Cannot send messages to this user", "… due to having no mutual guilds"


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, HTTP_ERROR):
        status: int = getattr(error, "status", 0)
        return status == 429 or status >= 500
    return isinstance(error, CALL_ERRORS)


def is_dm_closed(error: BaseException) -> bool:
    """Whether a person takes no direct messages of this bot."""
    code: int = getattr(error, "code", 0)
    return isinstance(error, HTTP_ERROR) and code in _DM_CLOSED
