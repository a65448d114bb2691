"""`/mt help`, generated from the registered commands and the permission rules."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import discord
from discord import AppCommandOptionType, app_commands

from bot.commands.responses import Answer, CommandContext, respond
from bot.messages.text import BLURPLE, make_embed
from bot.people.user_settings import current_unit
from bot.session.client import Bot
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.operations import CHAT_COMMANDS, Role
from trainer.contracts.units import UNIT_NOTE
from trainer.lab.language import _
from trainer.lab.permissions import bare_command, command_of, typed_command
from trainer.queue.run_index import matching

_MAX_CHOICES = 25  # Discord's limit
_FIRST = ("train", "status", "generate", "score", "compare")
"""The commands to begin with."""
KINDS = {
    AppCommandOptionType.string: "text",
    AppCommandOptionType.integer: "whole number",
    AppCommandOptionType.boolean: "True or False",
    AppCommandOptionType.number: "number",
    AppCommandOptionType.attachment: "file",
    AppCommandOptionType.user: "member",
}


@runtime_checkable
class CommandInfo(Protocol):
    """The part of discord.py's commands that the help shows."""

    qualified_name: str
    description: str
    parameters: list[app_commands.Parameter]


def all_commands(bot: Bot) -> Sequence[CommandInfo]:
    """Return the commands of all groups."""
    found: Iterable[object] = bot.tree.walk_commands()
    return [command for command in found if isinstance(command, CommandInfo)]


def command_name(command: CommandInfo) -> str:
    """Return a command's name in `CHAT_COMMANDS`: that in `/mt`, or of another group with the group."""
    return bare_command(command.qualified_name)


async def _topics(interaction: discord.Interaction[Bot], typed: str) -> list[app_commands.Choice[str]]:
    names = [command_name(command) for command in all_commands(interaction.client)]
    found = matching(typed, names, lambda name: (name,))
    return [app_commands.Choice(name=name, value=name) for name in found[:_MAX_CHOICES]]


@app_commands.command(name="help", description="Show the commands, and who may run them.")
@app_commands.describe(topic="Name of a command, to show its options")
@app_commands.autocomplete(topic=_topics)
async def help_command(interaction: discord.Interaction[Bot], topic: str | None = None) -> None:
    await respond(interaction, "help", lambda context: _help(context, topic))


async def _help(context: CommandContext, topic: str | None) -> Answer:
    commands = {command_name(command): command for command in all_commands(context.bot)}
    if topic is None:
        lines = [f"**{typed_command(name)}** · {_(commands[name].description)}" for name in _FIRST]
        lines += ["", *_groups(name for name in commands if _may_run(context, name))]
        lines += ["", _("`/mt help topic:train` shows the options of a command.")]
        unit = _("Losses and surprisals are in {unit}; `/mt settings` changes the unit.", unit=_(current_unit()))
        lines.append(f"{unit} {_(UNIT_NOTE)}")
        return Answer(make_embed(BLURPLE, f"❔ {_('Commands')}", lines))
    command = commands.get(bare_command(topic.strip()).casefold())
    if command is None:
        message = _("There is no command with this name. `/mt help` lists all commands.")
        raise AppError(ErrorCode.INVALID_INPUT, message)
    options = [
        f"**{option.display_name}** ({option_values(option)}{_(', required') if option.required else ''})"
        f" · {_(str(option.description))}"
        for option in command.parameters
    ]
    name = command_name(command)
    return Answer(make_embed(BLURPLE, f"❔ {typed_command(name)}", [_(command.description), *_rules(name), *options]))


def _may_run(context: CommandContext, command: str) -> bool:
    """Return whether the caller may run a command with some of its options."""
    roles = {operation.role for name, operation in CHAT_COMMANDS.items() if command_of(name) == command}
    return context.caller.is_admin or roles != {Role.ADMIN}


def _groups(names: Iterable[str]) -> Iterator[str]:
    """Yield one line for each group of commands: those of `/mt` itself, and those of each group in it or beside it."""
    groups: dict[str, list[str]] = {}
    for name in names:
        group, _space, action = typed_command(name).rpartition(" ")
        groups.setdefault(group, []).append(f"`{action}`")
    for group, actions in groups.items():
        yield f"**{group}** · {' '.join(actions)}"


def option_values(option: app_commands.Parameter) -> str:
    """Return the type and the bounds of an option's values, or its choices."""
    if option.choices:
        return ", ".join(choice.name for choice in option.choices)
    kind = _(KINDS[option.type])
    if option.max_value is None:
        return kind
    if option.type is AppCommandOptionType.string:
        return _("{kind}, at most {number} characters", kind=kind, number=option.max_value)
    return _("{kind}, {least} to {most}", kind=kind, least=f"{option.min_value:.16g}", most=f"{option.max_value:.16g}")


def audience(command: str) -> str:
    return _("the caller") if CHAT_COMMANDS[command].is_ephemeral else _("everybody in the channel")


def _rules(command: str) -> Iterator[str]:
    """Yield the role of a command and of its options, and the visibility of the answer."""
    for name, operation in CHAT_COMMANDS.items():
        if command_of(name) == command:
            option = name.removeprefix(command).strip()
            with_part = _(", with `{option}`", option=option) if option else ""
            role = _("For {role}", role=_(operation.role))
            visible = _("The answer is visible to {audience}.", audience=audience(name))
            yield f"{role}{with_part}. {visible}"
