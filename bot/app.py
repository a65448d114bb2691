"""Builds the bot from its commands, buttons and forms."""

import discord
from discord import app_commands

from bot.buttons import ButtonPress
from bot.client import Bot
from bot.commands.compare import compare
from bot.commands.help import help_command
from bot.commands.inference import INFERENCE_BUTTONS, INFERENCE_FORMS, chat, generate, score
from bot.commands.list_runs import LIST_BUTTONS, runs
from bot.commands.responses import ButtonAnswer, ButtonForm, Tree, answer_press
from bot.commands.runs import RUN_BUTTONS, cancel, logs, resume, status, unwatch, watch
from bot.commands.training import train
from trainer.config.settings import Settings

BUTTONS: dict[str, ButtonAnswer | ButtonForm] = {**RUN_BUTTONS, **LIST_BUTTONS, **INFERENCE_BUTTONS}
"""The reaction to each button, by action."""


def build(settings: Settings) -> Bot:
    """Return a bot with all its commands, not started."""
    bot = Bot(settings, _answer_press)
    bot.tree = Tree(bot)
    bot.tree.add_command(command_group())
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
    mt.add_command(help_command)
    return mt


async def _answer_press(interaction: discord.Interaction[Bot], press: ButtonPress) -> None:
    is_form = interaction.type is discord.InteractionType.modal_submit
    reaction = INFERENCE_FORMS.get(press.action) if is_form else BUTTONS.get(press.action)
    if reaction is not None:
        await answer_press(interaction, press, reaction)
