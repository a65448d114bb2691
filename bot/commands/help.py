"""`/mt help`, generated from the registered commands and the permission rules."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import discord
from discord import AppCommandOptionType, app_commands

from bot.client import Bot
from bot.commands.responses import Answer, CommandContext, respond
from bot.embeds.text import BLURPLE, make_embed
from bot.permissions import RULES
from bot.run_index import matching
from trainer.contracts.errors import AppError, ErrorCode

_KINDS = {
    AppCommandOptionType.string: "text",
    AppCommandOptionType.integer: "whole number",
    AppCommandOptionType.boolean: "True or False",
    AppCommandOptionType.number: "number",
    AppCommandOptionType.attachment: "file",
}


@runtime_checkable
class CommandInfo(Protocol):
    """The part of discord.py's commands that the help shows."""

    name: str
    description: str
    parameters: list[app_commands.Parameter]


def all_commands(bot: Bot) -> Sequence[CommandInfo]:
    """Return the commands of `/mt`."""
    found: Iterable[object] = bot.tree.walk_commands()
    return [command for command in found if isinstance(command, CommandInfo)]


async def _topics(interaction: discord.Interaction[Bot], typed: str) -> list[app_commands.Choice[str]]:
    names = [command.name for command in all_commands(interaction.client)]
    return [app_commands.Choice(name=name, value=name) for name in matching(typed, names, lambda name: (name,))]


@app_commands.command(name="help", description="Show the commands, and who may run them.")
@app_commands.describe(topic="Name of a command, to show its options")
@app_commands.autocomplete(topic=_topics)
async def help_command(interaction: discord.Interaction[Bot], topic: str | None = None) -> None:
    await respond(interaction, "help", lambda context: _help(context, topic))


async def _help(context: CommandContext, topic: str | None) -> Answer:
    commands = {command.name: command for command in all_commands(context.bot)}
    if topic is None:
        lines = [f"**/mt {name}** · {command.description}" for name, command in commands.items()]
        lines.append("`/mt help topic:train` shows the options of a command.")
        return Answer(make_embed(BLURPLE, "❔ Commands", lines))
    command = commands.get(topic.strip().removeprefix("/mt ").casefold())
    if command is None:
        raise AppError(ErrorCode.INVALID_INPUT, f"`topic` must be one of {', '.join(commands)}.")
    options = [
        f"**{option.name}** ({option_values(option)}{', required' if option.required else ''}) · {option.description}"
        for option in command.parameters
    ]
    return Answer(make_embed(BLURPLE, f"❔ /mt {command.name}", [command.description, *_rules(command.name), *options]))


def option_values(option: app_commands.Parameter) -> str:
    """Return the type and the bounds of an option's values, or its choices."""
    if option.choices:
        return ", ".join(choice.name for choice in option.choices)
    kind = _KINDS[option.type]
    if option.max_value is None:
        return kind
    if option.type is AppCommandOptionType.string:
        return f"{kind}, at most {option.max_value} characters"
    return f"{kind}, {option.min_value:.16g} to {option.max_value:.16g}"


def audience(command: str) -> str:
    return "the caller" if RULES[command].is_ephemeral else "everybody in the channel"


def _rules(command: str) -> Iterator[str]:
    """Yield the role of a command and of its options, and the visibility of the answer."""
    for name, rule in RULES.items():
        first, *part = name.split()
        if first == command:
            with_part = f", with `{part[0]}`" if part else ""
            yield f"For {rule.role}{with_part}. The answer is visible to {audience(name)}."
