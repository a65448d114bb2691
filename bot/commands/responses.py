"""Answers to commands and buttons: defer, check permissions and limits, answer, report errors."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import discord
import structlog
from discord import app_commands
from pydantic import ValidationError

from bot.commands.channels import Place
from bot.messages.answers import error_answer, undelivered_note
from bot.messages.buttons import ButtonPress
from bot.messages.files import no_files
from bot.people.user_settings import set_language, use_unit
from bot.rest.errors import (
    CALL_ERRORS,
    NOT_FOUND,
    error_code,
    has_token_ended,
    is_expired,
    is_transient,
    retry,
    server_errors,
)
from bot.session.client import RIVAL, Bot
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.operations import BY_NAME, CHAT_COMMANDS, Operation
from trainer.lab.lab import Lab
from trainer.lab.language import _
from trainer.lab.permissions import Caller
from trainer.system.files import BrokenFile, to_app_error
from trainer.system.retries import back_off

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")
FirstAnswer = Literal["none", "in place", "hidden", "public"]
"""State of an interaction: unanswered, its own message to be edited, or "thinking" for the caller or for all."""

_ANSWER_SECONDS = 3.0  # Discord's limit for the first answer
_FORM_SECONDS = 1.5
"""Limit for what a form shows, so that a sentence instead of it comes in time on a busy machine, too."""
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 0.5, 15.0
_MAX_DIRECT_RETRIES = 5
_ALREADY_ACKNOWLEDGED, _UNKNOWN_INTERACTION = 40060, 10062


class CommandContext(NamedTuple):
    """The bot, the caller and the channel of a running command."""

    bot: Bot
    caller: Caller
    place: Place = Place()

    @property
    def lab(self) -> Lab:
        return self.bot.lab


class Answer(NamedTuple):
    embed: discord.Embed
    files: Callable[[], list[discord.File]] = no_files
    view: discord.ui.View | None = None
    later: Callable[[], Awaitable["Answer"]] | None = None
    """Returns the answer that replaces this one, after a long time."""


class ButtonAnswer(NamedTuple):
    """The answer to a button or a form."""

    command: str
    """The command whose rule applies, or the operation of a button without a command."""
    work: Callable[[CommandContext, ButtonPress], Awaitable[Answer]]
    is_in_place: Callable[[ButtonPress], bool] = lambda press: False
    """Returns whether the answer replaces the message of the button."""


class ButtonForm(NamedTuple):
    """The form that a button opens."""

    command: str
    work: Callable[[CommandContext, ButtonPress], Awaitable[discord.ui.Modal]]


Reactions: TypeAlias = Mapping[str, ButtonAnswer | ButtonForm]
"""The reactions to buttons, lists or forms, by action."""


class Tree(app_commands.CommandTree[Bot]):
    """The command tree; handles errors that occur before a command starts."""

    async def on_error(self, interaction: discord.Interaction[Bot], error: app_commands.AppCommandError, /) -> None:
        cause = error.__cause__ or error
        speak_to(interaction)
        try:
            if interaction.type is not discord.InteractionType.autocomplete:  # suggestions cannot show an error
                await _send_error(interaction, _as_app_error(cause, _folders(interaction)), "none")
        finally:  # logging a traceback can take longer than Discord waits for a first answer
            log.error("command_not_started", request_id=request_id(interaction), exc_info=cause)


async def answer_press(
    interaction: discord.Interaction[Bot], press: ButtonPress, reaction: ButtonAnswer | ButtonForm
) -> None:
    """Answer a button or a form as its command, or open the button's form."""
    if interaction.message is not None:
        press = press._replace(files=interaction.message.attachments)
    if isinstance(reaction, ButtonForm):
        await open_form(interaction, reaction.command, lambda context: reaction.work(context, press))
    else:
        in_place = reaction.is_in_place(press)
        await respond(interaction, reaction.command, lambda context: reaction.work(context, press), in_place=in_place)


async def respond(
    interaction: discord.Interaction[Bot],
    command: str,
    work: Callable[[CommandContext], Awaitable[Answer]],
    *,
    in_place: bool = False,
) -> None:
    """Defer, check the caller's permission and limits, do the work and send its answer; only the caller sees errors.

    With `in_place`, the answer replaces the message whose button was pressed. Otherwise the message shows "thinking…",
    and the interaction is stored on disk until it is answered.
    """
    bot, number, operation = interaction.client, request_id(interaction), _operation(command)
    bound = log.bind(command=command, user_id=interaction.user.id, request_id=number)
    speak_to(interaction)
    first: FirstAnswer = "in place" if in_place else "hidden" if operation.is_ephemeral else "public"
    deferred = nullcontext() if in_place else bot.deferred.store(interaction, command, number)
    with bot.answering():
        async with deferred, _answered_errors(interaction, command, first, bound):
            if not await _defer(interaction, bound, is_hidden=operation.is_ephemeral, is_new=not in_place):
                return
            caller = await _permitted_caller(interaction, command)
            is_counted = operation.limit == "requests"
            caller = caller._replace(is_counted=is_counted)
            with bot.lab.limits.request(caller) if is_counted else nullcontext():
                answer = await work(CommandContext(bot, caller, Place.of(interaction)))
                while answer.later is not None:
                    await _deliver(interaction, _numbered(answer, number), first)
                    answer = await answer.later()
            await _deliver(interaction, _numbered(answer, number), first)
            bound.info("command_answered")


async def open_form(
    interaction: discord.Interaction[Bot], command: str, work: Callable[[CommandContext], Awaitable[discord.ui.Modal]]
) -> None:
    """Check the caller's permission and open a form, which must be the first answer; an error is sent instead.

    So is a sentence that asks to try again, if what the form shows cannot be read in time.
    """
    bot, number = interaction.client, request_id(interaction)
    bound = log.bind(command=command, user_id=interaction.user.id, request_id=number)
    speak_to(interaction)
    with bot.answering():
        async with _answered_errors(interaction, command, "none", bound):
            limit = asyncio.timeout(_FORM_SECONDS)
            try:
                async with limit:
                    form = await work(CommandContext(bot, await _permitted_caller(interaction, command)))
            except TimeoutError as error:
                if not limit.expired():
                    raise
                message = _("This machine is busy, and the form could not be opened in time. Try again.")
                raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message) from error
            with server_errors() as failures:
                try:
                    await interaction.response.send_modal(form)
                    bound.info("form_opened")
                except CALL_ERRORS as error:  # it may be open all the same, so no second answer is sent
                    if error_code(error) == _ALREADY_ACKNOWLEDGED and not failures:
                        _report_rival(bot, bound)
                    else:
                        bound.warning("form_not_confirmed", error=str(error))


def speak_to(interaction: discord.Interaction[Bot]) -> None:
    """Set language and unit of the answers to a caller: those of the settings, or else the defaults."""
    settings = interaction.client.user_settings
    set_language(settings.of(interaction.user.id).language, interaction.locale)
    use_unit(settings.unit_of(interaction.user.id))


def _operation(command: str) -> Operation:
    """Return the operation of a command, or of a button without a command."""
    return CHAT_COMMANDS.get(command) or BY_NAME[command]


async def _permitted_caller(interaction: discord.Interaction[Bot], command: str) -> Caller:
    """Return the caller; raises FORBIDDEN if the command is not for the caller."""
    bot = interaction.client
    caller = await bot.lab.permissions.caller(interaction.user.id, interaction.guild_id)
    bot.lab.permissions.check(_operation(command).role, caller)
    return caller


@asynccontextmanager
async def _answered_errors(
    interaction: discord.Interaction[Bot], command: str, first: FirstAnswer, bound: structlog.stdlib.BoundLogger
) -> AsyncIterator[None]:
    """Send and log any error of the block; nothing is sent if the answer was deleted."""
    try:
        yield
    except AppError as error:
        bound.info("command_refused", error_code=error.code)
        await _send_error(interaction, interaction.client.lab.permissions.worded(error, command), first)
    except Exception as error:  # noqa: BLE001  (the boundary of all commands)
        if is_expired(error):
            bound.warning("answer_deleted", error=str(error))
            return
        try:
            await _send_error(interaction, _as_app_error(error, _folders(interaction)), first)
        finally:  # as in Tree.on_error
            bound.error("command_failed", exc_info=error)


def request_id(interaction: discord.Interaction[Bot]) -> str:
    """Return eight hex digits that identify a command in answers and in the log."""
    return sha256(str(interaction.id).encode()).hexdigest()[:8]


async def _defer(
    interaction: discord.Interaction[Bot], bound: structlog.stdlib.BoundLogger, *, is_hidden: bool, is_new: bool
) -> bool:
    """Give the first answer once; return False if Discord no longer accepts it, or has one of another process.

    After a lost reply, checks for the answer before sending it again.
    """
    deadline, was_tried = time.monotonic() + _ANSWER_SECONDS, False
    with server_errors() as failures:
        while True:
            try:
                await interaction.response.defer(ephemeral=is_hidden, thinking=is_new)
            except CALL_ERRORS as error:
                code, reason = error_code(error), str(error)
            else:
                return True
            if code == _ALREADY_ACKNOWLEDGED:
                is_own = was_tried or bool(failures)
                if not is_own:
                    _report_rival(interaction.client, bound)
                return is_own
            if code == _UNKNOWN_INTERACTION:
                break
            bound.warning("first_answer_failed", error=reason)
            was_tried = True
            with suppress(*CALL_ERRORS):
                await interaction.original_response()
                return True
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_FIRST_RETRY_SECONDS)
    bound.warning("interaction_expired")
    return False


def _report_rival(bot: Bot, bound: structlog.stdlib.BoundLogger) -> None:
    """Report that another process has answered an interaction first, so that this one must not run its command."""
    bot.has_rival = True
    bound.error("token_used_twice", reason=RIVAL)


def _numbered(answer: Answer, number: str) -> Answer:
    """Return the answer with the request's id in its footer."""
    place = answer.embed.footer.text
    answer.embed.set_footer(text=" · ".join(filter(None, (place, _("request {number}", number=number)))))
    return answer


async def _deliver(interaction: discord.Interaction[Bot], answer: Answer, first: FirstAnswer) -> None:
    """Answer in place of the first answer, or by direct message if the command was too long ago."""
    try:
        if first == "hidden":
            await _fill_with_undelivered(interaction, answer)
        else:
            await _fill(interaction, answer)
    except CALL_ERRORS as error:
        if not has_token_ended(error):
            raise
        await _send_directly(interaction, answer)


async def _send_directly(interaction: discord.Interaction[Bot], answer: Answer) -> None:
    """Send an answer to the caller as a direct message, once."""
    nonce = str(interaction.id)
    view = discord.ui.View() if answer.view is None else answer.view
    await retry(
        lambda: interaction.user.send(embed=answer.embed, files=answer.files(), view=view, nonce=nonce),
        islice(back_off(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS), _MAX_DIRECT_RETRIES),
        log.bind(request_id=request_id(interaction)),
    )


async def _fill_with_undelivered(interaction: discord.Interaction[Bot], answer: Answer) -> None:
    """Answer, and add the caller's undelivered results to the same message."""
    async with interaction.client.notifier.deliver_pending(interaction.user.id) as results:
        cards = [one.card for one in results]
        await _fill(interaction, answer, [undelivered_note(cards)] if cards else [])


async def _fill(interaction: discord.Interaction[Bot], answer: Answer, notes: Sequence[discord.Embed] = ()) -> None:
    """Replace the first answer."""
    await _persist(
        interaction,
        lambda: interaction.edit_original_response(
            embeds=[answer.embed, *notes], attachments=answer.files(), view=answer.view
        ),
    )


async def _persist(interaction: discord.Interaction[Bot], call: Callable[[], Awaitable[T]]) -> T:
    """Call Discord until it answers or the interaction expires; raises a refusal."""
    return await retry(
        call,
        back_off(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS),
        log.bind(request_id=request_id(interaction)),
        is_wanted=lambda: not interaction.is_expired(),
    )


def _folders(interaction: discord.Interaction[Bot]) -> Mapping[str, Path]:
    return interaction.client.settings.app.folders()


def _as_app_error(error: BaseException, folders: Mapping[str, Path]) -> AppError:
    """Return an error with a sentence about its own kind: of Discord or a service, a disk, a record or the program.

    `folders` are those of the settings, by name.
    """
    if is_transient(error):
        return AppError(
            ErrorCode.SERVICE_UNAVAILABLE, _("Discord or a service did not respond. Try again in a minute.")
        )
    if isinstance(error, BrokenFile):
        return to_app_error(error, folders)
    message = _("The bot failed to run this command.")
    if isinstance(error, ValidationError):
        message = _("A stored record cannot be read ({kind}).", kind=error.title)
    elif isinstance(error, OSError):
        with suppress(OSError):
            return to_app_error(error, folders)
        reason = type(error).__name__ if error.strerror is None else error.strerror
        message = _("A file cannot be used ({reason}).", reason=reason)
    return AppError(
        ErrorCode.INTERNAL_ERROR, f"{message} {_('The log has the details under the number of the request.')}"
    )


async def _send_error(interaction: discord.Interaction[Bot], error: AppError, first: FirstAnswer) -> None:
    """Send an error that only the caller sees, in any state of the interaction."""
    embed = error_answer(error, request_id(interaction))
    try:
        if first == "none":
            await interaction.response.send_message(embed=embed, ephemeral=True)
        elif first == "hidden":
            await _deliver(interaction, Answer(embed), "in place")
        else:
            if first == "public":
                # a follow-up to a public "thinking" would be public: delete that first
                await _persist(interaction, lambda: _delete_original(interaction))
            await _persist(interaction, lambda: interaction.followup.send(embed=embed, ephemeral=True))
    except CALL_ERRORS:
        log.exception("error_not_sent", request_id=request_id(interaction))


async def _delete_original(interaction: discord.Interaction[Bot]) -> None:
    with suppress(NOT_FOUND):  # deleted by an earlier try whose reply was lost
        await interaction.delete_original_response()
