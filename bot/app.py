"""Builds the bot from its commands, buttons and forms."""

import asyncio
from importlib import import_module

import discord
import structlog
from discord import app_commands

from bot.commands import jobs, message_menus, run_buttons
from bot.commands.responses import Reactions, Tree, answer_press
from bot.messages.buttons import ButtonPress
from bot.rest.errors import CLOSED, HTTP_ERROR, is_transient
from bot.session.client import Bot
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.operations import CHAT_COMMANDS

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_CANCEL_SECONDS = 2.0
_WRONG_TOKEN, _REFUSED_INTENTS = 4004, 4014  # Discord's codes

_MODULES = {
    one.chat.source: import_module(f"bot.commands.{one.chat.source[0]}") for one in CHAT_COMMANDS.values() if one.chat
}
"""The module of each command or group, in the order of the help."""


def _reactions(name: str) -> Reactions:
    """Return what the modules have under a name, together."""
    found: Reactions = {}
    for module in (*_MODULES.values(), jobs, message_menus, run_buttons):
        reactions: Reactions = getattr(module, name, {})
        found = {**found, **reactions}
    return found


BUTTONS, FORMS = _reactions("BUTTONS"), _reactions("FORMS")
"""The reaction to each button or list, and to each submitted form, by action."""


def build(settings: Settings) -> Bot:
    """Return a bot with all its commands, not started."""
    bot = Bot(settings, _answer_press)
    bot.tree = Tree(bot)
    mt = app_commands.Group(
        name="mt",
        description="Train small language models and use them.",
        allowed_installs=app_commands.AppInstallationType(guild=True, user=True),
        allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True),
    )
    bot.tree.add_command(mt)
    for (_, name), module in _MODULES.items():
        command: app_commands.Command[app_commands.Group, [], None] | app_commands.Group = getattr(module, name)
        if command.name.startswith("mt-"):
            bot.tree.add_command(command)
        else:
            mt.add_command(command)
    bot.tree.add_command(message_menus.score_message)
    bot.tree.add_command(message_menus.train_on_attachment)
    return bot


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
    if isinstance(error, HTTP_ERROR) or is_transient(error):
        log.error("discord_unavailable", error=str(error))
        return AppError(ErrorCode.SERVICE_UNAVAILABLE, f"Discord is unavailable: {error}.")
    return error
