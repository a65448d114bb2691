"""What all commands and buttons share: the first answer, the check of rights, one error handler."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from hashlib import sha256
from io import BytesIO
from typing import Literal, NamedTuple, TypeVar

import discord
import structlog
from discord import app_commands

from bot.client import Bot
from bot.discord_errors import CALL_ERRORS, NOT_FOUND, error_code, is_gone, is_transient
from bot.embeds import error_answer, untold_note
from bot.permissions import RULES, Caller
from bot.retries import back_off, until_answered
from trainer.contracts.errors import AppError, ErrorCode

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")
Deferred = Literal["not", "here", "hidden", "public"]
"""How an interaction stands: unanswered, its own message to be changed, or "thinking" for one or for all to see."""

_ANSWER_SECONDS = 3.0  # Discord's limit for the first answer
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.5, 15.0
_ALREADY_ACKNOWLEDGED, _UNKNOWN_INTERACTION = 40060, 10062


class Call(NamedTuple):
    """A command that is being worked on."""

    bot: "Bot"
    caller: Caller
    request_id: str


class Answer(NamedTuple):
    embed: discord.Embed
    files: Sequence[discord.File] = ()
    view: discord.ui.View | None = None
    note: discord.Embed | None = None
    """What else the one who asked is to know."""


class Tree(app_commands.CommandTree[Bot]):
    """The commands; what fails before a command has begun ends here."""

    async def on_error(self, interaction: discord.Interaction[Bot], error: app_commands.AppCommandError, /) -> None:
        cause = error.__cause__ or error
        try:
            if interaction.type is not discord.InteractionType.autocomplete:  # suggestions have no place for an error
                await _send_error(interaction, _told(cause), "not")
        finally:  # writing a traceback may take longer than Discord waits for a first answer
            log.error("command could not begin", request_id=request_id(interaction), exc_info=cause)


async def respond(
    interaction: discord.Interaction[Bot],
    command: str,
    work: Callable[[Call], Awaitable[Answer]],
    *,
    in_place: bool = False,
) -> None:
    """Defer, check the caller's level and limits, do the work, send its answer; what fails is told to the caller alone.

    With `in_place`, the answer changes the message whose button was pressed. Otherwise the message shows "thinking…",
    and the interaction is kept on disk until it is answered.
    """
    keeping = (
        nullcontext() if in_place else interaction.client.deferred.kept(interaction, command, request_id(interaction))
    )
    async with keeping:
        await _respond(interaction, command, work, in_place=in_place)


async def _respond(
    interaction: discord.Interaction[Bot],
    command: str,
    work: Callable[[Call], Awaitable[Answer]],
    *,
    in_place: bool,
) -> None:
    rule = RULES[command]
    bot, number = interaction.client, request_id(interaction)
    bound = log.bind(command=command, user_id=interaction.user.id, request_id=number)
    deferred: Deferred = "here" if in_place else "hidden" if rule.ephemeral else "public"
    try:
        if not await _defer(interaction, is_hidden=rule.ephemeral, is_new=not in_place):
            bound.warning("Discord no longer waits for an answer")
            return
        caller = await bot.permissions.caller(interaction.user.id, interaction.guild_id)
        call = Call(bot, caller, number)
        if rule.is_limited:
            with bot.limits.request(caller):
                answer = await work(call)
        else:
            answer = await work(call)
        if in_place or not rule.ephemeral:
            await _fill(interaction, answer)
        else:
            await _fill_with_untold(interaction, answer)
        bound.info("command answered")
    except AppError as error:
        bound.info("command refused", error_code=error.code)
        await _send_error(interaction, error, deferred)
    except Exception as error:
        if is_gone(error):
            bound.warning("there is no place left for the answer", error=str(error))
            return
        bound.exception("command failed")
        await _send_error(interaction, _told(error), deferred)


async def open_form(
    interaction: discord.Interaction[Bot], command: str, work: Callable[[Call], Awaitable[discord.ui.Modal]]
) -> None:
    """Check the caller's level and open a form, which has to be the first answer; what fails is told instead."""
    bot, number = interaction.client, request_id(interaction)
    bound = log.bind(command=command, user_id=interaction.user.id, request_id=number)
    try:
        caller = await bot.permissions.caller(interaction.user.id, interaction.guild_id)
        form = await work(Call(bot, caller, number))
    except AppError as error:
        bound.info("command refused", error_code=error.code)
        await _send_error(interaction, error, "not")
    except Exception as error:
        try:
            await _send_error(interaction, _told(error), "not")
        finally:  # as in Tree.on_error
            bound.exception("command failed")
    else:
        try:
            await interaction.response.send_modal(form)
            bound.info("form opened")
        except CALL_ERRORS as error:  # whether it opened is not known: a second answer could be one too many
            bound.warning("form may not have opened", error=str(error))


def request_id(interaction: discord.Interaction[Bot]) -> str:
    """Eight hex digits that tie an answer to the lines of the log."""
    return sha256(str(interaction.id).encode()).hexdigest()[:8]


async def _defer(interaction: discord.Interaction[Bot], *, is_hidden: bool, is_new: bool) -> bool:
    """Give the first answer, and give it once; False where Discord no longer takes it.

    Where its reply was lost, Discord is asked whether the answer has arrived before it is given again.
    """
    deadline = time.monotonic() + _ANSWER_SECONDS
    while True:
        try:
            await interaction.response.defer(ephemeral=is_hidden, thinking=is_new)
            return True
        except CALL_ERRORS as error:
            code = error_code(error)
            if code in (_ALREADY_ACKNOWLEDGED, _UNKNOWN_INTERACTION):
                return code == _ALREADY_ACKNOWLEDGED
            log.warning("first answer did not arrive", request_id=request_id(interaction), error=str(error))
        if await _is_acknowledged(interaction):
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_FIRST_RETRY_SECONDS)


async def _is_acknowledged(interaction: discord.Interaction[Bot]) -> bool:
    try:
        await interaction.original_response()
    except CALL_ERRORS:
        return False
    return True


async def _fill_with_untold(interaction: discord.Interaction[Bot], answer: Answer) -> None:
    """Answer, and tell the one who asked what could not be sent: in the same message, so that it comes once."""
    async with interaction.client.listener.telling_untold(interaction.user.id) as untold:
        note = untold_note([(one.run.record, one.status) for one in untold]) if untold else None
        await _fill(interaction, answer._replace(note=note))


async def _fill(interaction: discord.Interaction[Bot], answer: Answer) -> None:
    """Put the answer where the first one was; a try reads its files, so each has files of its own."""
    files = [(file.filename, file.fp.read(), file.description) for file in answer.files]
    await _persist(
        interaction,
        lambda: interaction.edit_original_response(
            embeds=[answer.embed, *([] if answer.note is None else [answer.note])],
            attachments=[discord.File(BytesIO(data), name, description=text) for name, data, text in files],
            view=answer.view,
        ),
    )


async def _persist(interaction: discord.Interaction[Bot], call: Callable[[], Awaitable[T]]) -> T:
    """Call Discord until it answers, as long as it knows the interaction; what it refuses is raised."""
    return await until_answered(
        call,
        back_off(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS),
        log.bind(request_id=request_id(interaction)),
        is_wanted=lambda: not interaction.is_expired(),
    )


def _told(error: BaseException) -> AppError:
    if is_transient(error):
        return AppError(ErrorCode.SERVICE_UNAVAILABLE, "Discord or a service did not answer: try again in a minute.")
    return AppError(ErrorCode.INTERNAL_ERROR, "This is a fault of the bot, not of what you asked.")


async def _send_error(interaction: discord.Interaction[Bot], error: AppError, deferred: Deferred) -> None:
    """Tell the caller alone, however the interaction stands."""
    embed = error_answer(error, request_id(interaction))
    try:
        if deferred == "not":
            await interaction.response.send_message(embed=embed, ephemeral=True)
        elif deferred == "hidden":
            await _fill(interaction, Answer(embed))
        else:
            if deferred == "public":
                # a follow-up to a public "thinking" would be public itself, so that has to go first
                await _persist(interaction, lambda: _delete_original(interaction))
            await _persist(interaction, lambda: interaction.followup.send(embed=embed, ephemeral=True))
    except CALL_ERRORS:
        log.exception("error could not be told", request_id=request_id(interaction))


async def _delete_original(interaction: discord.Interaction[Bot]) -> None:
    try:
        await interaction.delete_original_response()
    except NOT_FOUND:
        pass  # gone already, by a try whose reply was lost
