"""A Discord on one machine: REST, gateway and files for a real bot, and people who use it."""

from local_discord.client import ClientRefusal, FieldValue, OptionValue
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
    "FieldValue",
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
