"""The channel of a command, as a place for cards and mentions."""

import discord

from bot.session.client import POSTING, Bot
from trainer.contracts.errors import AppError, ErrorCode
from trainer.lab.language import _


def may_post(interaction: discord.Interaction[Bot]) -> bool:
    """Return whether the bot may post in the channel of a command."""
    is_thread = isinstance(interaction.channel, discord.Thread)
    needed = discord.Permissions(POSTING.value)
    needed.update(send_messages=not is_thread, send_messages_in_threads=is_thread)
    return interaction.is_guild_integration() and needed <= interaction.app_permissions


def channel_id_of(interaction: discord.Interaction[Bot], instead: str) -> int | None:
    """Return the channel of a command, or None for direct messages; raises FORBIDDEN if the bot may not post there."""
    if interaction.context.dm_channel:
        return None
    if not may_post(interaction):
        raise AppError(
            ErrorCode.FORBIDDEN,
            _(
                "The bot may not post in this channel. Use `{option}`, or let the bot view the channel, send messages,"
                " embed links, attach files and read the history.",
                option=instead,
            ),
        )
    return interaction.channel_id


def origin_of(interaction: discord.Interaction[Bot]) -> int | None:
    """Return the channel for a mention of a caller whose direct messages are closed; None if there is none."""
    return None if interaction.context.dm_channel or not may_post(interaction) else interaction.channel_id
