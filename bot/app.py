"""Builds the bot from its commands, buttons and forms."""

from discord import app_commands

from bot.client import Bot, ButtonHandler
from bot.commands.compare import compare
from bot.commands.help import help_command
from bot.commands.inference import INFERENCE_BUTTONS, INFERENCE_FORMS, chat, generate, score
from bot.commands.list_runs import runs, runs_clicked
from bot.commands.logs import logs, logs_clicked
from bot.commands.responses import Tree
from bot.commands.runs import cancel, cancel_clicked, resume, resume_clicked, status, status_clicked
from bot.commands.training import train
from bot.commands.watch import unwatch, unwatch_clicked, watch, watch_clicked
from trainer.config.settings import Settings


def build(settings: Settings) -> Bot:
    """Return a bot with all its commands, not started."""
    bot = Bot(settings, BUTTONS, INFERENCE_FORMS)
    bot.tree = Tree(bot)
    group = command_group()
    bot.tree.add_command(group)
    bot.group_payload = group.to_dict(bot.tree)
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


BUTTONS: dict[str, ButtonHandler] = {
    "status": status_clicked,
    "runs": runs_clicked,
    "cancel": cancel_clicked,
    "logs": logs_clicked,
    "resume": resume_clicked,
    "watch": watch_clicked,
    "unwatch": unwatch_clicked,
    **INFERENCE_BUTTONS,
}
"""The handler of each button, by action."""
