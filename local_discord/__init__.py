"""A Discord on this machine: REST, gateway and files for a real bot, and simulated people."""

from local_discord.client import ClientRefusal, OptionValue
from local_discord.driver import Choice, LocalDiscord
from local_discord.gateway import Drop
from local_discord.rest import Limit
from local_discord.state import Upload

__all__ = ["Choice", "ClientRefusal", "Drop", "Limit", "LocalDiscord", "OptionValue", "Upload"]
