"""A Discord on this machine: REST, gateway and files for a real bot, and simulated people."""

from local_discord.client import ClientRefusal, OptionValue
from local_discord.driver import Choice, LocalDiscord, shown_text
from local_discord.gateway import Drop
from local_discord.ratelimit import Limit
from local_discord.state import Call, Channel, Guild, StoredMessage, Upload, User, Violation

__all__ = [
    "Call",
    "Channel",
    "Choice",
    "ClientRefusal",
    "Drop",
    "Guild",
    "Limit",
    "LocalDiscord",
    "OptionValue",
    "StoredMessage",
    "Upload",
    "User",
    "Violation",
    "shown_text",
]
