"""Discord's refusals by what they mean; the exceptions' own classes are not typed strictly, so they are named here."""

import aiohttp
import discord

HTTP_ERROR: type[discord.DiscordException] = discord.HTTPException
NOT_FOUND: type[discord.DiscordException] = discord.NotFound
CLOSED: tuple[type[discord.DiscordException], ...] = (discord.ConnectionClosed, discord.PrivilegedIntentsRequired)
"""Raised when Discord has ended the gateway's connection and takes no new one."""
CALL_ERRORS: tuple[type[Exception], ...] = (HTTP_ERROR, discord.RateLimited, aiohttp.ClientError, OSError)
"""What a call to Discord may raise: its refusal, or the way to it."""

_CLOSED = (
    *(50007, 50278),  # "Cannot send messages to this user", "… due to having no mutual guilds"
    *(50033, 10013),  # "Invalid Recipient(s)", "Unknown User"
    *(10003, 50001, 50013),  # "Unknown Channel", "Missing Access", "Missing Permissions"
)

_TOO_FAST = 40003
""""You are opening direct messages too fast"."""
_NOWHERE = (
    *(50027, 10015),  # "Invalid Webhook Token", "Unknown Webhook": 15 minutes after the command
    10008,  # "Unknown Message": whoever asked has put the answer away
)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, HTTP_ERROR):
        status: int = getattr(error, "status", 0)
        return status == 429 or status >= 500 or error_code(error) == _TOO_FAST
    return isinstance(error, CALL_ERRORS)


def is_closed(error: BaseException) -> bool:
    """Whether a channel takes no messages of this bot: a person's direct messages, or one that it may not post in."""
    return error_code(error) in _CLOSED


def is_gone(error: BaseException) -> bool:
    """Whether there is nothing left that a command's answer could be put into."""
    return error_code(error) in _NOWHERE


def error_code(error: BaseException) -> int:
    """Discord's number for what it has refused; 0 where it says none."""
    code: int = getattr(error, "code", 0)
    return code if isinstance(error, HTTP_ERROR) else 0


def retry_after_seconds(error: BaseException) -> float:
    """How long Discord wants to be left alone at least."""
    if isinstance(error, discord.RateLimited):
        return error.retry_after
    response: object = getattr(error, "response", None)
    said = response.headers.get("Retry-After", "") if isinstance(response, aiohttp.ClientResponse) else ""
    return float(said) if said.isdecimal() else 0.0
