"""Builds the bot from its commands, buttons and forms."""

import asyncio

import discord
import structlog
from discord import app_commands

from bot.commands.admin import ADMIN_FORMS, admin_group
from bot.commands.batteries import BATTERY_BUTTONS, BATTERY_FORMS, battery_group
from bot.commands.chat import CHAT_BUTTONS, CHAT_FORMS, chat
from bot.commands.compare import COMPARE_BUTTONS, compare
from bot.commands.corpora import CORPUS_BUTTONS, CORPUS_FORMS, corpus_group
from bot.commands.evaluation import EVALUATION_BUTTONS, evaluate
from bot.commands.experiments import EXPERIMENT_BUTTONS, EXPERIMENT_FORMS, experiment_group
from bot.commands.export import export
from bot.commands.generate import GENERATE_BUTTONS, GENERATE_FORMS, generate
from bot.commands.help import help_command
from bot.commands.inference import predict
from bot.commands.list_runs import LIST_BUTTONS, LIST_FORMS, runs
from bot.commands.message_menus import MENU_FORMS, score_message, train_on_attachment
from bot.commands.queue import QUEUE_BUTTONS, queue
from bot.commands.responses import ButtonAnswer, ButtonCommand, ButtonForm, Tree, answer_press
from bot.commands.run_buttons import ACTION_BUTTONS, ACTION_FORMS
from bot.commands.runs import RUN_BUTTONS, cancel, logs, resume, status, unwatch, watch
from bot.commands.score import SCORE_BUTTONS, SCORE_FORMS, score
from bot.commands.settings import SETTINGS_FORMS, settings_command
from bot.commands.tokenizers import TOKENIZER_BUTTONS, TOKENIZER_FORMS, tokenizer_group
from bot.commands.training import train
from bot.messages.buttons import ButtonPress
from bot.rest.errors import CALL_ERRORS, CLOSED
from bot.session.client import Bot
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_CANCEL_SECONDS = 2.0
_WRONG_TOKEN, _REFUSED_INTENTS = 4004, 4014  # Discord's codes

BUTTONS: dict[str, ButtonAnswer | ButtonCommand | ButtonForm] = {
    **RUN_BUTTONS,
    **ACTION_BUTTONS,
    **LIST_BUTTONS,
    **SCORE_BUTTONS,
    **GENERATE_BUTTONS,
    **CHAT_BUTTONS,
    **QUEUE_BUTTONS,
    **EVALUATION_BUTTONS,
    **COMPARE_BUTTONS,
    **CORPUS_BUTTONS,
    **TOKENIZER_BUTTONS,
    **BATTERY_BUTTONS,
    **EXPERIMENT_BUTTONS,
}
"""The reaction to each button or list, by action."""
FORMS: dict[str, ButtonAnswer | ButtonCommand] = {
    **ACTION_FORMS,
    **LIST_FORMS,
    **MENU_FORMS,
    **SCORE_FORMS,
    **GENERATE_FORMS,
    **CHAT_FORMS,
    **SETTINGS_FORMS,
    **ADMIN_FORMS,
    **CORPUS_FORMS,
    **TOKENIZER_FORMS,
    **BATTERY_FORMS,
    **EXPERIMENT_FORMS,
}
"""The reaction to each submitted form, by action."""


def build(settings: Settings) -> Bot:
    """Return a bot with all its commands, not started."""
    bot = Bot(settings, _answer_press)
    bot.tree = Tree(bot)
    bot.tree.add_command(command_group())
    bot.tree.add_command(admin_group())
    bot.tree.add_command(score_message)
    bot.tree.add_command(train_on_attachment)
    return bot


def command_group() -> app_commands.Group:
    """Return `/mt` with all its commands."""
    mt = app_commands.Group(
        name="mt",
        description="Train small language models and use them.",
        allowed_installs=app_commands.AppInstallationType(guild=True, user=True),
        allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True),
    )
    mt.add_command(train)
    mt.add_command(status)
    mt.add_command(runs)
    mt.add_command(compare)
    mt.add_command(watch)
    mt.add_command(unwatch)
    mt.add_command(cancel)
    mt.add_command(resume)
    mt.add_command(logs)
    mt.add_command(generate)
    mt.add_command(chat)
    mt.add_command(score)
    mt.add_command(predict)
    mt.add_command(evaluate)
    mt.add_command(export)
    mt.add_command(queue)
    mt.add_command(settings_command)
    corpus_group(mt)
    tokenizer_group(mt)
    battery_group(mt)
    experiment_group(mt)
    mt.add_command(help_command)
    return mt


async def _answer_press(interaction: discord.Interaction[Bot], press: ButtonPress) -> None:
    is_form = interaction.type is discord.InteractionType.modal_submit
    reaction = FORMS.get(press.action) if is_form else BUTTONS.get(press.action)
    if reaction is not None:
        await answer_press(interaction, press, reaction)


async def run(settings: Settings, token: str, stop: asyncio.Event) -> int:
    """Run the bot until `stop` is set and return 0; stops everything that was started."""
    async with build(settings) as bot:
        running, waiting = asyncio.create_task(bot.start(token)), asyncio.create_task(stop.wait())
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        running.cancel()
        # a new connection may lose the cancellation; leaving the block closes it
        await asyncio.wait((running,), timeout=_CANCEL_SECONDS)
        if running.done() and not running.cancelled() and (error := running.exception()):
            raise _as_app_error(error)
        log.info("bot_stopped")
    return 0


def _as_app_error(error: BaseException) -> BaseException:
    """Return a foreseen failure as an AppError with one sentence, any other error as it is."""
    code: int = getattr(error, "code", _REFUSED_INTENTS)
    if isinstance(error, discord.LoginFailure) or (isinstance(error, CLOSED) and code == _WRONG_TOKEN):
        return AppError(
            ErrorCode.CONFIG_INVALID,
            "Discord refuses DISCORD__TOKEN. Copy the token again from Discord's developer portal.",
        )
    if isinstance(error, CLOSED):
        return AppError(
            ErrorCode.SERVICE_UNAVAILABLE,
            f"Discord refuses the bot's connection (code {code}). Update the bot, and check its intents in Discord's"
            " developer portal.",
        )
    if isinstance(error, CALL_ERRORS):
        log.error("discord_unavailable", error=str(error))
        return AppError(ErrorCode.SERVICE_UNAVAILABLE, f"Discord is unavailable: {error}.")
    return error
