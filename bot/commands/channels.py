"""The channel of a command, as a place for cards and mentions."""

from typing import NamedTuple

import discord

from bot.session.client import POSTING, Bot
from trainer.contracts.errors import AppError, ErrorCode
from trainer.lab.language import _


class Place(NamedTuple):
    """The channel of a command."""

    channel_id: int | None = None
    """None for direct messages."""
    may_post: bool = False
    """True if the bot may post there."""

    @classmethod
    def of(cls, interaction: discord.Interaction[Bot]) -> "Place":
        """Return the channel of an interaction."""
        if interaction.context.dm_channel:
            return cls()
        is_thread = isinstance(interaction.channel, discord.Thread)
        needed = discord.Permissions(POSTING.value)
        needed.update(send_messages=not is_thread, send_messages_in_threads=is_thread)
        may_post: bool = interaction.is_guild_integration() and needed <= interaction.app_permissions
        return cls(interaction.channel_id, may_post)

    @property
    def for_mentions(self) -> int | None:
        """Return the channel for a mention of a caller whose direct messages are closed; None if there is none."""
        return self.channel_id if self.may_post else None

    def for_cards(self, instead: str) -> int | None:
        """Return the channel, or None for direct messages; raises FORBIDDEN if the bot may not post there."""
        if self.channel_id is None or self.may_post:
            return self.channel_id
        raise AppError(
            ErrorCode.FORBIDDEN,
            _(
                "The bot may not post in this channel. Use `{option}`, or let the bot view the channel, send messages,"
                " embed links, attach files and read the history.",
                option=instead,
            ),
        )
