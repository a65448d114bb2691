"""What all commands and buttons share: the first answer, the check of rights, one error handler."""

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import discord
import structlog
from discord import app_commands

from bot.discord_errors import CALL_ERRORS, is_transient
from bot.embeds import error_answer
from bot.permissions import RULES, Caller
from trainer.contracts.errors import AppError, ErrorCode

if TYPE_CHECKING:
    from bot.app import Bot

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class Call(NamedTuple):
    """A command that is being worked on."""

    bot: "Bot"
    caller: Caller
    request_id: str


class Answer(NamedTuple):
    embed: discord.Embed
    files: Sequence[discord.File] = ()


class Tree(app_commands.CommandTree["Bot"]):
    """The commands; what fails before a command has begun ends here."""

    async def on_error(self, interaction: discord.Interaction["Bot"], error: app_commands.AppCommandError, /) -> None:
        cause = error.__cause__ or error
        log.error("command could not begin", request_id=request_id(interaction), exc_info=cause)
        await _send_error(interaction, _told(cause), defer_is_ephemeral=None)


async def respond(
    interaction: discord.Interaction["Bot"], command: str, work: Callable[[Call], Awaitable[Answer]]
) -> None:
    """Defer, check the caller's level, do the work, send its answer; what fails is told to the caller alone."""
    ephemeral = RULES[command].ephemeral
    await interaction.response.defer(ephemeral=ephemeral, thinking=True)
    bot, number = interaction.client, request_id(interaction)
    bound = log.bind(command=command, user_id=interaction.user.id, request_id=number)
    try:
        caller = await bot.permissions.caller(interaction.user.id, interaction.guild_id)
        answer = await work(Call(bot, caller, number))
        await interaction.edit_original_response(embed=answer.embed, attachments=answer.files)
        bound.info("command answered")
    except AppError as error:
        bound.info("command refused", code=error.code)
        await _send_error(interaction, error, defer_is_ephemeral=ephemeral)
    except Exception as error:
        bound.exception("command failed")
        await _send_error(interaction, _told(error), defer_is_ephemeral=ephemeral)


def request_id(interaction: discord.Interaction["Bot"]) -> str:
    """Eight hex digits that tie an answer to the lines of the log."""
    return sha256(str(interaction.id).encode()).hexdigest()[:8]


def _told(error: BaseException) -> AppError:
    if is_transient(error):
        return AppError(ErrorCode.SERVICE_UNAVAILABLE, "Discord or a service did not answer: try again in a minute.")
    return AppError(ErrorCode.INTERNAL_ERROR, "This is a fault of the bot, not of what you asked.")


async def _send_error(
    interaction: discord.Interaction["Bot"], error: AppError, *, defer_is_ephemeral: bool | None
) -> None:
    embed = error_answer(error, request_id(interaction))
    try:
        if defer_is_ephemeral is None:
            await interaction.response.send_message(embed=embed, ephemeral=True)
        elif defer_is_ephemeral:
            await interaction.edit_original_response(embed=embed, attachments=[])
        else:
            # a follow-up to a public "thinking" would be public itself, so that has to go first
            await interaction.delete_original_response()
            await interaction.followup.send(embed=embed, ephemeral=True)
    except CALL_ERRORS:
        log.exception("error could not be told", request_id=request_id(interaction))
