"""Builds the bot from its commands, buttons and forms."""

import discord
from discord import app_commands

from bot.commands.admin import ADMIN_FORMS, admin_group
from bot.commands.chat import CHAT_BUTTONS, CHAT_FORMS, chat
from bot.commands.compare import COMPARE_BUTTONS, compare
from bot.commands.corpora import CORPUS_BUTTONS, CORPUS_FORMS, corpus_group
from bot.commands.evaluation import EVALUATION_BUTTONS, evaluate
from bot.commands.experiments import EXPERIMENT_BUTTONS, EXPERIMENT_FORMS, experiment_group
from bot.commands.export import export
from bot.commands.generate import GENERATE_BUTTONS, GENERATE_FORMS, generate
from bot.commands.help import help_command
from bot.commands.list_runs import LIST_BUTTONS, LIST_FORMS, runs
from bot.commands.message_menus import MENU_FORMS, score_message, train_on_attachment
from bot.commands.predict import predict
from bot.commands.queue import QUEUE_BUTTONS, queue
from bot.commands.responses import ButtonAnswer, ButtonCommand, ButtonForm, Tree, answer_press
from bot.commands.run_buttons import ACTION_BUTTONS, ACTION_FORMS
from bot.commands.runs import RUN_BUTTONS, cancel, logs, resume, status, unwatch, watch
from bot.commands.score import SCORE_BUTTONS, SCORE_FORMS, score
from bot.commands.settings import SETTINGS_FORMS, settings_command
from bot.commands.tokenizers import TOKENIZER_BUTTONS, TOKENIZER_FORMS, tokenizer_group
from bot.commands.training import train
from bot.messages.buttons import ButtonPress
from bot.session.client import Bot
from trainer.config.settings import Settings

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
    experiment_group(mt)
    mt.add_command(help_command)
    return mt


async def _answer_press(interaction: discord.Interaction[Bot], press: ButtonPress) -> None:
    is_form = interaction.type is discord.InteractionType.modal_submit
    reaction = FORMS.get(press.action) if is_form else BUTTONS.get(press.action)
    if reaction is not None:
        await answer_press(interaction, press, reaction)
